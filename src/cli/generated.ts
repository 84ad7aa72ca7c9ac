// Files of the repository that are written from the sources: by `node build/js/src/cli/generated.js`, and compared with
// what stands there by a test.
import { mkdirSync, readFileSync, writeFileSync } from "node:fs";
import path from "node:path";
import { fileURLToPath } from "node:url";
import { configJsonSchema, configTable } from "../config/reference.js";
import { productVersion } from "../version.js";
import { completionScript } from "./completion.js";
import { commandReference, exitCodeTable, manualPage } from "./manual.js";
import { createProgram } from "./program.js";

/** Every generated file, by its path in the repository. `read`: the file as it stands, for those that are generated only
 * between two marks. */
export function generatedFiles(read: (file: string) => string): Record<string, string> {
  const program = createProgram();
  const part = (file: string, name: string, text: string, before = read(file)): string => {
    const [begin, end] = [`<!-- generated: ${name} -->\n`, `<!-- end of ${name} -->\n`];
    const [head, rest] = before.split(begin);
    const tail = rest?.split(end)[1];
    if (head === undefined || tail === undefined) throw new Error(`${file} has no part ${name}`);
    return `${head}${begin}\n${text.trim()}\n\n${end}${tail}`;
  };
  const configuration = "docs/configuration.md";
  const cli = "docs/cli.md";
  return {
    "deploy/tandem.schema.json": `${JSON.stringify(configJsonSchema(), null, 2)}\n`,
    "deploy/man/tandem.1": manualPage(program, productVersion),
    "deploy/completion/tandem.bash": completionScript("bash", program),
    "deploy/completion/_tandem": completionScript("zsh", program),
    "deploy/completion/tandem.fish": completionScript("fish", program),
    [configuration]: part(
      configuration,
      "example",
      `\`\`\`yaml\n${read("examples/tandem.yaml")}\`\`\``,
      part(configuration, "keys", configTable()),
    ),
    [cli]: part(cli, "commands", commandReference(program), part(cli, "exit codes", exitCodeTable())),
  };
}

const root = path.resolve(path.dirname(fileURLToPath(import.meta.url)), "../../../..");

if (process.argv[1] === fileURLToPath(import.meta.url)) {
  const files = generatedFiles((file) => readFileSync(path.join(root, file), "utf8"));
  for (const [file, text] of Object.entries(files)) {
    mkdirSync(path.dirname(path.join(root, file)), { recursive: true });
    writeFileSync(path.join(root, file), text);
  }
}
