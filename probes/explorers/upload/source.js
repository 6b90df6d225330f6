// Sends a file to the kernel in parts, one after the other, and has it used.

import { Source } from "#shared/source.js";

/** @import { AnyModel, Message, Part } from "#shared/types.js" */

/**
 * @typedef {object} Sending a file on its way
 * @property {File} file
 * @property {number} sent bytes that the kernel has
 * @property {number} part bytes of a part
 */

/** Events: "sending" when the file on its way, or how much of it has arrived, changes. @extends {Source<{}>} */
export class UploadSource extends Source {
  /** @param {AnyModel<{}>} model */
  constructor(model) {
    super(model);
    /** @type {Sending | null} */
    this.sending = null;
  }

  /**
   * Sends a file. One that is on its way is given up.
   *
   * @param {File} file
   */
  send(file) {
    this.sending = { file, sent: 0, part: 0 };
    this.link.report(`Sending ${file.name}`, { busy: true });
    this.link.request("start", { name: file.name, size: file.size, type: file.type });
    this.emit("sending");
  }

  /** Gives up the file that is on its way. */
  cancel() {
    this.sending = null;
    this.link.report("Cancelled.", { failed: true, cancelled: true });
    this.emit("sending");
  }

  /**
   * @override
   * @param {Message & {part?: number, received?: number}} message
   * @param {Part[]} _parts
   */
  receive(message, _parts) {
    const { sending } = this;
    if (message.kind === "use") {
      this.link.report("");
    } else if (sending && message.kind === "start") {
      sending.part = message.part ?? 0;
      if (sending.part) this.sendPart(sending);
      else this.end(); // it was refused; the kernel has said why
    } else if (sending && message.kind === "part") {
      sending.sent = message.received ?? 0;
      this.emit("sending");
      this.sendPart(sending);
    }
  }

  /** @param {Sending} sending */
  sendPart(sending) {
    const { file, sent, part } = sending;
    if (sent >= file.size) {
      this.sending = null;
      this.emit("sending");
      this.link.request("use");
      return;
    }
    file
      .slice(sent, sent + part)
      .arrayBuffer()
      .then(
        (bytes) => {
          if (this.sending === sending) this.link.request("part", { start: sent }, [bytes]);
        },
        (error) => {
          this.end();
          this.link.report(`The browser cannot read ${file.name}: ${error.message}`, { failed: true });
        },
      );
  }

  end() {
    this.sending = null;
    this.link.report("");
    this.emit("sending");
  }
}
