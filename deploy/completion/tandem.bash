# bash completion for tandem
_tandem() {
	local current="${COMP_WORDS[COMP_CWORD]}" previous="${COMP_WORDS[COMP_CWORD-1]}" words=""
	case "$previous" in
	-c|--config|-W|--write|--keys) COMPREPLY=($(compgen -f -- "$current")); return ;;
	esac
	local line=("${COMP_WORDS[@]:1:COMP_CWORD-1}")
	local name="" word
	for word in "${line[@]}"; do
		case "${name:+$name }$word" in
		"agent"|"status"|"sessions"|"session"|"history"|"doctor"|"capture"|"switchover"|"failover"|"pause"|"resume"|"resync"|"arbiter"|"arbiter status"|"arbiter grant"|"arbiter revoke"|"config"|"config check"|"config schema"|"reload"|"pair"|"pair init"|"detach"|"lab"|"lab demo"|"lab up"|"drill"|"drill list"|"drill run"|"completion") name="${name:+$name }$word" ;;
		esac
	done
	case "$name" in
	"") words="agent status sessions session history doctor capture switchover failover pause resume resync arbiter config reload pair detach lab drill completion --version --help" ;;
	"agent") words="--config --log-level --help" ;;
	"status") words="--config --json --watch --help" ;;
	"sessions") words="--config --service --not-ready --peer --limit --json --watch --help" ;;
	"session") words="--config --json --watch --help" ;;
	"history") words="--config --limit --json --help" ;;
	"doctor") words="--config --quiet --json --help" ;;
	"capture") words="--config --write --count --seconds --json --help" ;;
	"switchover") words="--config --force --yes --json --help" ;;
	"failover") words="--config --force --yes --json --help" ;;
	"pause") words="--config --reason --yes --json --help" ;;
	"resume") words="--config --json --help" ;;
	"resync") words="--config --force --yes --json --help" ;;
	"arbiter") words="status grant revoke --help" ;;
	"arbiter status") words="--config --json --help" ;;
	"arbiter grant") words="--config --json --help" ;;
	"arbiter revoke") words="--config --json --help" ;;
	"config") words="check schema --help" ;;
	"config check") words="--config --json --help" ;;
	"config schema") words="--help" ;;
	"reload") words="--config --dry-run --json --help" ;;
	"pair") words="init --help" ;;
	"pair init") words="--keys --json --help" ;;
	"detach") words="--config --json --help" ;;
	"lab") words="demo up --help" ;;
	"lab demo") words="--json --id --megabytes --interactive --help" ;;
	"lab up") words="--id --help" ;;
	"drill") words="list run --help" ;;
	"drill list") words="--json --help" ;;
	"drill run") words="--live --config --yes --output --lease --junit --html --json --help" ;;
	"completion") words="bash zsh fish --help" ;;
	esac
	COMPREPLY=($(compgen -W "$words" -- "$current"))
}
complete -F _tandem tandem
