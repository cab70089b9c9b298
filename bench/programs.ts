import { resolve } from "node:path";
import { layOutTestedPrograms } from "../scripts/tested-programs.ts";

/**
 * The folder of volantd and volar that are measured: laid out as the package has them, since that is what a host runs; in place of those, what VOLANT_BENCH_PROGRAMS names, such as the
 * checkout's `bin`.
 */
export async function measuredPrograms(): Promise<string> {
  const { VOLANT_BENCH_PROGRAMS: named } = process.env;
  return named === undefined ? (await layOutTestedPrograms()).VOLANT_TEST_PROGRAMS : resolve(named);
}
