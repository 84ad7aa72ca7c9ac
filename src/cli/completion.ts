// tandem completion: a script for bash, zsh or fish, written from the commands themselves.
import { Argument, Command } from "commander";
import { write } from "./terminal.js";

type Shell = "bash" | "zsh" | "fish";

export function completionCommand(): Command {
  return new Command("completion")
    .summary("print a completion script for a shell")
    .description(
      "Prints a completion script. bash: source <(tandem completion bash). zsh: put it into a directory of $fpath as _tandem. fish: tandem completion fish | source.",
    )
    .addArgument(new Argument("<shell>", "which one").choices(["bash", "zsh", "fish"]))
    .action((shell: Shell, _options: unknown, command: Command) => write(completionScript(shell, rootOf(command))));
}

function rootOf(command: Command): Command {
  return command.parent ? rootOf(command.parent) : command;
}

interface Word {
  text: string;
  what: string;
}

/** What may stand after each command, by its full name ("" is tandem itself). */
export function wordsOf(root: Command): Map<string, Word[]> {
  const words = new Map<string, Word[]>();
  const walk = (command: Command, name: string): void => {
    const help = command.createHelp();
    const below = help.visibleCommands(command).filter((each) => each.name() !== "help");
    words.set(name, [
      ...below.map((each) => ({ text: each.name(), what: each.summary() })),
      ...command.registeredArguments.flatMap(({ argChoices = [] }) => argChoices.map((text) => ({ text, what: "" }))),
      ...help.visibleOptions(command).map(({ long, description }) => ({ text: long ?? "", what: description })),
    ]);
    for (const each of below) walk(each, `${name} ${each.name()}`.trim());
  };
  walk(root, "");
  return words;
}

export function completionScript(shell: Shell, root: Command): string {
  const words = wordsOf(root);
  const names = [...words.keys()].filter((name) => name !== "");
  switch (shell) {
    case "bash":
      return bash(words, names);
    case "zsh":
      return zsh(words, names);
    case "fish":
      return fish(words, names);
  }
}

/** The command that has been typed so far: words of the line as long as they are commands. */
const bashContext = (names: string[]): string => `	local name="" word
	for word in "\${line[@]}"; do
		case "\${name:+$name }$word" in
		${names.map((name) => `"${name}"`).join("|")}) name="\${name:+$name }$word" ;;
		esac
	done
`;

function bash(words: Map<string, Word[]>, names: string[]): string {
  const cases = [...words].map(([name, list]) => `	"${name}") words="${list.map(({ text }) => text).join(" ")}" ;;\n`);
  return `# bash completion for tandem
_tandem() {
	local current="\${COMP_WORDS[COMP_CWORD]}" previous="\${COMP_WORDS[COMP_CWORD-1]}" words=""
	case "$previous" in
	-c|--config|-W|--write|--keys) COMPREPLY=($(compgen -f -- "$current")); return ;;
	esac
	local line=("\${COMP_WORDS[@]:1:COMP_CWORD-1}")
${bashContext(names)}	case "$name" in
${cases.join("")}	esac
	COMPREPLY=($(compgen -W "$words" -- "$current"))
}
complete -F _tandem tandem
`;
}

function zsh(words: Map<string, Word[]>, names: string[]): string {
  const quoted = ({ text, what }: Word): string => `'${text.replaceAll(":", "\\:")}:${what.replaceAll("'", "'\\''")}'`;
  const cases = [...words].map(([name, list]) => `	"${name}") list=(${list.map(quoted).join(" ")}) ;;\n`);
  return `#compdef tandem
_tandem() {
	local -a list line
	case "\${words[CURRENT-1]}" in
	-c|--config|-W|--write|--keys) _files; return ;;
	esac
	line=("\${(@)words[2,CURRENT-1]}")
${bashContext(names)}	case "$name" in
${cases.join("")}	esac
	_describe 'tandem' list
}
_tandem "$@"
`;
}

function fish(words: Map<string, Word[]>, names: string[]): string {
  const quoted = (text: string): string => `'${text.replaceAll("\\", "\\\\").replaceAll("'", "\\'")}'`;
  const lines = [...words].flatMap(([name, list]) =>
    list.map(({ text, what }) => {
      const word = text.startsWith("--") ? `-l ${text.slice(2)}` : `-a ${quoted(text)}`;
      return `complete -c tandem -n 'test (__tandem_command) = ${quoted(name).replaceAll("'", '"')}' ${word} -d ${quoted(what)}\n`;
    }),
  );
  return `# fish completion for tandem
function __tandem_command
	set -l name ""
	for word in (commandline -opc)[2..]
		set -l longer (string trim "$name $word")
		switch "$longer"
			case ${names.map(quoted).join(" ")}
				set name "$longer"
		end
	end
	echo "$name"
end
complete -c tandem -f
complete -c tandem -s c -l config -r -F
${lines.join("")}`;
}
