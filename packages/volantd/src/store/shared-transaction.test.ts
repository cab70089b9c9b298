import assert from "node:assert/strict";
import { DatabaseSync } from "node:sqlite";
import test from "node:test";
import { SharedTransaction } from "./shared-transaction.ts";

function open() {
  const database = new DatabaseSync(":memory:");
  database.exec("CREATE TABLE things (name TEXT PRIMARY KEY) STRICT");
  let begun = 0;
  const transaction = (work: () => void): void => {
    const isPart = database.isTransaction;
    if (!isPart) begun += 1;
    database.exec(isPart ? "SAVEPOINT part" : "BEGIN");
    try {
      work();
      database.exec(isPart ? "RELEASE part" : "COMMIT");
    } catch (error) {
      if (database.isTransaction) database.exec(isPart ? "ROLLBACK TO part; RELEASE part" : "ROLLBACK");
      throw error;
    }
  };
  const shared = new SharedTransaction(transaction, () => database.isTransaction);
  const names = () =>
    database
      .prepare("SELECT name FROM things ORDER BY name")
      .all()
      .map((row) => row["name"]);
  const add = (name: string) => void database.prepare("INSERT INTO things VALUES (?)").run(name);
  return { database, shared, names, add, begun: () => begun };
}

test("what is asked for in one turn is one transaction, and one part that fails is undone alone", async () => {
  const { shared, names, add, begun } = open();
  const asked = ["a", "b", "a", "c"].map((name) =>
    shared.run(() => {
      add(`before ${name}, ${String(name === "a" && names().includes("a"))}`);
      add(name);
      return name.toUpperCase();
    }),
  );
  assert.deepEqual(names(), [], "nothing is done in the turn itself");
  const outcomes = await Promise.allSettled(asked);
  assert.equal(begun(), 1);
  assert.deepEqual(
    outcomes.map((outcome) => (outcome.status === "fulfilled" ? outcome.value : "refused")),
    ["A", "B", "refused", "C"],
  );
  assert.deepEqual(names(), ["a", "b", "before a, false", "before b, false", "before c, false", "c"]);
  assert.equal(await shared.run(() => 7), 7);
  assert.equal(begun(), 2);
});

test("where the whole transaction is undone, nobody is told that his part is done", async () => {
  const { database, shared, names, add } = open();
  const asked = [
    () => add("a"),
    // As SQLite does by itself on a full disk.
    () => {
      database.exec("ROLLBACK");
      throw new Error("the disk is full");
    },
    () => add("b"),
  ].map((work) => shared.run(work));
  const outcomes = await Promise.allSettled(asked);
  assert.deepEqual(
    outcomes.map(({ status }) => status),
    ["rejected", "rejected", "rejected"],
  );
  assert.deepEqual(names(), []);
});
