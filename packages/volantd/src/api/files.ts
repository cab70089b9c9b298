/** Files of guests: bodies stream both ways, at the pace of the slower end. */
import { pipeline, type Readable } from "node:stream";
import { ARCHIVE_TYPE, BACKUP_TYPE, ROUTE_SCOPES, ROUTE_SPECS } from "@volant/contract";
import type { FastifyInstance, FastifyReply } from "fastify";
import type { BackupUseCases, FileUseCases } from "../engine/use-cases.ts";
import { goneSignal, type ReadInput } from "./handler.ts";
import { limited } from "./images.ts";

/** Sends a file as the answer; one that breaks off takes the connection with it, so that half of it does not look like all of it. */
function sendFile(reply: FastifyReply, type: string, content: Readable): void {
  reply.hijack();
  const headers = Object.entries(reply.getHeaders()).filter(([, value]) => value !== undefined);
  reply.raw.writeHead(200, { ...Object.fromEntries(headers), "content-type": type });
  reply.raw.flushHeaders();
  pipeline(content, reply.raw, () => {});
}

/** The route `system.backup`: as long as it says, so that a part of it does not look like all of it. */
export function addBackupRoute(app: FastifyInstance, backups: BackupUseCases, read: ReadInput): void {
  app.route({
    method: "GET",
    url: ROUTE_SPECS["system.backup"].path,
    config: { scope: ROUTE_SCOPES["system.backup"] },
    exposeHeadRoute: false,
    handler: async (request, reply) => {
      read("system.backup", request);
      const { sizeBytes, content } = await backups.backup();
      reply.header("content-length", String(sizeBytes));
      sendFile(reply, BACKUP_TYPE, content);
    },
  });
}

/** The routes `vms.files.read` and `vms.files.write`. */
export function addFileRoutes(app: FastifyInstance, files: FileUseCases, read: ReadInput, maxBytes: number): void {
  app.route({
    method: "GET",
    url: ROUTE_SPECS["vms.files.read"].path,
    config: { scope: ROUTE_SCOPES["vms.files.read"] },
    exposeHeadRoute: false,
    handler: async (request, reply) => {
      const { params, query } = read("vms.files.read", request);
      sendFile(reply, ARCHIVE_TYPE, await files.read(params.name, query.path, goneSignal(reply)));
    },
  });
  app.route({
    method: "PUT",
    url: ROUTE_SPECS["vms.files.write"].path,
    // What feeds standard input may pause, and so may a guest's disk.
    config: { scope: ROUTE_SCOPES["vms.files.write"], upload: true, patient: true },
    bodyLimit: maxBytes,
    handler: async (request, reply) => {
      const { params, query, upload } = read("vms.files.write", request);
      const archive = request.headers["content-type"]?.split(";")[0]?.trim().toLowerCase() === ARCHIVE_TYPE;
      const kind = archive ? ("archive" as const) : { mode: query.mode ?? "644" };
      const content = limited(upload, maxBytes);
      let broken: Error | undefined;
      content.on("error", (error) => (broken = error));
      try {
        return await files.write(params.name, { path: query.path, kind, content }, goneSignal(reply));
      } catch (error) {
        throw broken ?? error;
      } finally {
        content.destroy();
        // What the client still sends is read and dropped, or it would wait for the answer while we wait for it.
        upload.unpipe();
        upload.resume();
      }
    },
  });
}
