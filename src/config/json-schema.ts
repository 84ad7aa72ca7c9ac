// The part of JSON Schema (2020-12) that zod writes for our schemas: read back to write tables of them.
import { z } from "zod";

const node = z.looseObject({
  description: z.string().optional(),
  /** Ours: `tandem reload` may change it. */
  live: z.boolean().optional(),
  type: z.union([z.string(), z.array(z.string())]).optional(),
  const: z.unknown().optional(),
  enum: z.array(z.unknown()).optional(),
  default: z.unknown().optional(),
  minimum: z.number().optional(),
  maximum: z.number().optional(),
  required: z.array(z.string()).optional(),
  get properties() {
    return z.record(z.string(), node).optional();
  },
  get items() {
    return node.optional();
  },
  get anyOf() {
    return z.array(node).optional();
  },
  get oneOf() {
    return z.array(node).optional();
  },
});
export type JsonSchema = z.infer<typeof node>;

/** What may stand there instead of each other; empty: there is one shape only. */
export function alternativesOf({ anyOf = [], oneOf = [] }: JsonSchema): JsonSchema[] {
  return [...anyOf, ...oneOf];
}

/** Of what is written (input: defaults may be left out) or of what is answered (output). */
export function jsonSchemaOf(schema: z.ZodType, io: "input" | "output"): JsonSchema {
  return node.parse(z.toJSONSchema(schema, { io }));
}
