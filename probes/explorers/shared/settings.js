// The widget's traits as controls use them.

/** @import { AnyModel } from "./types.js" */

/** @template {object} Traits */
export class Settings {
  /**
   * @param {AnyModel<Traits>} model
   * @param {() => void} [onSave] called after each change made on this page
   */
  constructor(model, onSave = () => {}) {
    this.model = model;
    this.onSave = onSave;
  }

  /**
   * @template {keyof Traits & string} Name
   * @param {Name} name
   * @returns {Traits[Name]}
   */
  get(name) {
    return this.model.get(name);
  }

  /**
   * Sets traits, and sends them to Python.
   *
   * @param {Partial<Traits>} changes
   */
  save(changes) {
    for (const name of /** @type {(keyof Traits & string)[]} */ (Object.keys(changes))) {
      this.model.set(name, /** @type {Traits[keyof Traits & string]} */ (changes[name]));
    }
    this.model.save_changes();
    this.onSave();
  }

  /**
   * Goes to the next of some values, and from the last to the first.
   *
   * @template {keyof Traits & string} Name
   * @param {Name} name
   * @param {readonly Traits[Name][]} values
   */
  cycle(name, values) {
    const next = values[(values.indexOf(this.get(name)) + 1) % values.length];
    this.save(/** @type {Partial<Traits>} */ (/** @type {unknown} */ ({ [name]: next })));
  }

  /**
   * Switches a trait between true and false.
   *
   * @param {keyof Traits & string} name
   */
  toggle(name) {
    this.save(/** @type {Partial<Traits>} */ (/** @type {unknown} */ ({ [name]: !this.get(name) })));
  }
}
