#!/bin/sh
# keepalived speaks for the pair: reads the states of its VRRP instances from its FIFO, in order, and tells the agent.
#   vrrp_notify_fifo_script "/usr/share/tandem/keepalived/notify.sh"     (keepalived adds the FIFO's path)
#
# The instance is called "tandem" (TANDEM_INSTANCE). MASTER grants; BACKUP, FAULT and STOP revoke, and so does the end of
# the FIFO: keepalived is gone. Grants and revocations for an agent that does not run wait for it in a file.
set -u

# What is not said must be said again: an agent may be busy, or frozen.
tell() {
	until ${TANDEM:-tandem} arbiter "$1" >/dev/null; do
		logger -t tandem-keepalived -- "tandem arbiter $1 has failed, and is tried again" 2>/dev/null
		sleep 1
	done
}

# keepalived ends its scripts when it stops, before they have read what that means.
trap '' TERM HUP INT

while read -r kind name state _; do
	[ "$kind" = INSTANCE ] && [ "$name" = "\"${TANDEM_INSTANCE:-tandem}\"" ] || continue
	case $state in
	MASTER) tell grant ;;
	BACKUP | FAULT | STOP) tell revoke ;;
	esac
done <"$1"
tell revoke
