import type { KeyUseCases } from "../engine/use-cases.ts";
import { DONE, type Handlers } from "./handler.ts";

/** API keys: make, list, revoke. */
export function keyHandlers(keys: KeyUseCases): Handlers<"keys.create" | "keys.list" | "keys.revoke"> {
  return {
    "keys.create": ({ body }) => ({ body: keys.create(body) }),
    "keys.list": () => ({ body: [...keys.list()] }),
    "keys.revoke": ({ params }) => {
      keys.revoke(params.key);
      return DONE;
    },
  };
}
