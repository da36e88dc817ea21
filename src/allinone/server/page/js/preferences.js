/**
 * What the browser remembers: choices for good (localStorage), drafts and the key for this tab (sessionStorage).
 * Where storage is switched off the page works all the same, and remembers until it is closed.
 */

const PREFIX = "allinone.";

class Shelf {
  constructor(open) {
    this.memory = new Map();
    try {
      this.storage = open();
      this.storage.getItem(PREFIX);
    } catch {
      this.storage = null;
    }
  }

  get(name) {
    return this.memory.get(name) ?? this.storage?.getItem(PREFIX + name) ?? null;
  }

  set(name, value) {
    try {
      if (!this.storage) throw new Error("no storage");
      this.storage.setItem(PREFIX + name, value);
      this.memory.delete(name);
    } catch {
      this.memory.set(name, value); // switched off, or full
    }
  }

  remove(name) {
    this.memory.delete(name);
    this.storage?.removeItem(PREFIX + name);
  }

  /** What stands behind `prefix` in all names that begin with it. */
  names(prefix) {
    const stored = Object.keys(this.storage ?? {}).filter((name) => name.startsWith(PREFIX)).map((name) => name.slice(PREFIX.length));
    return [...new Set([...stored, ...this.memory.keys()])].filter((name) => name.startsWith(prefix)).map((name) => name.slice(prefix.length));
  }

  /** Forget everything of this page. */
  clear() {
    this.memory.clear();
    for (const name of Object.keys(this.storage ?? {})) if (name.startsWith(PREFIX)) this.storage.removeItem(name);
  }
}

/** Remembered for good: language and theme. */
export const lasting = new Shelf(() => window.localStorage);

/** Remembered until the tab is closed: the key, drafts. */
export const ofTab = new Shelf(() => window.sessionStorage);
