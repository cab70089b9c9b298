/** Exit code of a process under off-linux.ts that loaded what it must not. */
export const LOADED_EXIT_CODE = 86;
