#!/bin/sh
# Runs a command with the BPF file system at /sys/fs/bpf; mounts it when it is not there, and then unmounts it again
# unless somebody else has put something there meanwhile.
set -u
mounted_by_us=""
undo() {
	[ -n "$mounted_by_us" ] && [ -z "$(ls -A /sys/fs/bpf 2>/dev/null)" ] && umount /sys/fs/bpf 2>/dev/null
	mounted_by_us=""
}
if ! mountpoint -q /sys/fs/bpf; then
	mount -t bpf bpf /sys/fs/bpf || { echo "cannot mount the BPF file system at /sys/fs/bpf; run as root" >&2; exit 1; }
	mounted_by_us=1
fi
# The command gets the terminal's signals as well and ends by itself; we only wait for it.
trap : INT TERM HUP
"$@" &
child=$!
wait "$child"
status=$?
while kill -0 "$child" 2>/dev/null; do
	kill -TERM "$child" 2>/dev/null
	wait "$child"
	status=$?
done
undo
exit "$status"
