/** For NODE_OPTIONS=--import: a volantd with a planted defect. It forgets to write down changes of a stopped VM's configuration. */
import { SqliteStore } from "../../../packages/volantd/src/store/sqlite-store.ts";

const writeConfig = SqliteStore.prototype.writeConfig;

SqliteStore.prototype.writeConfig = function (id, change) {
  const record = this.getVm(id);
  return record?.desired === "stopped" ? record : writeConfig.call(this, id, change);
};
