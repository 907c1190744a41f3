import { clone, create, createFileRegistry, fromBinary, isFieldSet, toBinary } from "@bufbuild/protobuf";
import type { DescFile, DescMessage, Message } from "@bufbuild/protobuf";
import type { DescriptorProto, FieldDescriptorProto, FileDescriptorProto } from "@bufbuild/protobuf/wkt";
import {
  FieldDescriptorProtoSchema,
  FileDescriptorProtoSchema,
  FileDescriptorSetSchema,
} from "@bufbuild/protobuf/wkt";

/** Field numbers from here up are ours. */
const OURS = 10_000;
const OUR_FILES = "pillion/";
/** Messages of ours in a file of theirs hold them; nothing but our fields leads there. */
const OUR_TYPES = ".dev.pillion.";

/**
 * A message as a proxy reads it that has never heard of us: by the same schema without our fields and our files, made from the
 * descriptors at run time. Every field of ours that is in the bytes is then an unknown one.
 */
export function readStandard<T extends Message>(schema: DescMessage, message: T): T {
  const bytes = toBinary(schema, message);
  return fromBinary(standardSchema(schema), bytes) as T;
}

/** Whether any field is in it that the schema does not know. */
export function hasUnknownFields(message: unknown): boolean {
  if (Array.isArray(message)) return message.some(hasUnknownFields);
  if (typeof message !== "object" || message === null || message instanceof Uint8Array) return false;
  if ("$unknown" in message && Array.isArray(message.$unknown) && message.$unknown.length > 0) return true;
  return Object.entries(message).some(([name, value]) => name !== "$unknown" && hasUnknownFields(value));
}

const schemas = new Map<string, DescMessage>();

function standardSchema(schema: DescMessage): DescMessage {
  const known = schemas.get(schema.typeName);
  if (known !== undefined) return known;
  const files = new Map<string, FileDescriptorProto>();
  collect(schema.file, files);
  const registry = createFileRegistry(create(FileDescriptorSetSchema, { file: [...files.values()] }));
  const made = registry.getMessage(schema.typeName)!;
  schemas.set(schema.typeName, made);
  return made;
}

/** Those that it imports first. */
function collect(file: DescFile, into: Map<string, FileDescriptorProto>): void {
  if (into.has(file.name) || file.name.startsWith(OUR_FILES)) return;
  for (const dependency of file.dependencies) collect(dependency, into);
  const copy = clone(FileDescriptorProtoSchema, file.proto);
  copy.dependency = copy.dependency.filter((name) => !name.startsWith(OUR_FILES));
  for (const message of copy.messageType) strip(message);
  into.set(file.name, copy);
}

function strip(message: DescriptorProto): void {
  message.field = message.field.filter(
    ({ number, typeName }) => number < OURS && !typeName.startsWith(OUR_TYPES),
  );
  // An optional field has a oneof of its own, which stands behind the real ones.
  const used = new Set(
    message.field.filter((field) => isSet(field, "oneofIndex")).map((field) => field.oneofIndex),
  );
  while (message.oneofDecl.length > 0 && !used.has(message.oneofDecl.length - 1)) message.oneofDecl.pop();
  for (const nested of message.nestedType) strip(nested);
}

function isSet(field: FieldDescriptorProto, name: "oneofIndex"): boolean {
  return isFieldSet(field, FieldDescriptorProtoSchema.field[name]);
}
