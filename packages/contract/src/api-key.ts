/** API keys. The secret itself is in one answer only, that to its creation. */
import { Type, type Static } from "typebox";
import { nameRules } from "./names.ts";

const closed = { additionalProperties: false } as const;

export const ApiKeyName = Type.String({ title: "API key", ...nameRules });

export const ApiKeyScope = Type.Union([Type.Literal("read"), Type.Literal("operate"), Type.Literal("admin")], {
  description: "Each includes those before it: read, operate, admin",
});

const apiKey = {
  name: ApiKeyName,
  scope: ApiKeyScope,
  created_at: Type.String(),
  last_used_at: Type.Optional(Type.String({ description: "To the minute; absent for a key that was never used" })),
};

export const ApiKey = Type.Object(apiKey, closed);
export type ApiKey = Static<typeof ApiKey>;

export const CreateApiKeyRequest = Type.Object({ name: ApiKeyName, scope: ApiKeyScope }, closed);
export type CreateApiKeyRequest = Static<typeof CreateApiKeyRequest>;

export const CreatedApiKey = Type.Object(
  { ...apiKey, key: Type.String({ description: "The key itself: told here and never again" }) },
  closed,
);
export type CreatedApiKey = Static<typeof CreatedApiKey>;
