import { Type, type Static } from "typebox";

/** What a copy into a guest has written there. */
export const FilesWritten = Type.Object(
  {
    files: Type.Integer({ minimum: 0, description: "Files and symbolic links" }),
    bytes: Type.Integer({ minimum: 0 }),
    left_out: Type.Integer({ minimum: 0, description: "Entries that are no file, directory or symbolic link" }),
  },
  { additionalProperties: false },
);
export type FilesWritten = Static<typeof FilesWritten>;

/** An absolute path in a guest. Percent-encoded it has to fit into the headers of a request. */
const GuestPath = Type.String({
  minLength: 1,
  maxLength: 1024,
  // oxlint-disable-next-line no-control-regex -- a path can hold anything but a zero byte
  pattern: "^/[^\\u0000]*$",
  description: "Absolute path in the guest",
});

export const ReadFilesQuery = Type.Object({ path: GuestPath }, { additionalProperties: false });
export type ReadFilesQuery = Static<typeof ReadFilesQuery>;

export const WriteFilesQuery = Type.Object(
  {
    path: GuestPath,
    mode: Type.Optional(
      Type.String({ pattern: "^[0-7]{3,4}$", description: "Of a single file, in octal; 644 unless given" }),
    ),
  },
  { additionalProperties: false },
);
export type WriteFilesQuery = Static<typeof WriteFilesQuery>;
