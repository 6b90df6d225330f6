// A button to choose an image file, and a place to drop or paste one. What becomes of the file is said below it, by
// widgets of the kernel.

import { button } from "#shared/controls.js";
import { element, setText } from "#shared/elements.js";
import { defineWidget, View } from "#shared/widget.js";
import { UploadSource } from "./source.js";

/** @import { AnyModel } from "#shared/types.js" */

/**
 * @param {number} bytes
 * @returns {string}
 */
const megabytes = (bytes) => (bytes / 2 ** 20).toFixed(1);

/** @extends {View<{}, UploadSource>} */
class UploadView extends View {
  /**
   * @param {AnyModel<{}>} model
   * @param {HTMLElement} el
   * @param {UploadSource} source
   */
  constructor(model, el, source) {
    super(model, el, source, "upload");
    this.input = element("input", {
      type: "file",
      accept: "image/*",
      hidden: true,
      onchange: () => {
        this.take(this.input.files);
        this.input.value = ""; // the same file can be chosen again
      },
    });
    const choose = button("Choose an image", "Choose an image file of this computer", () => this.input.click(), {
      className: "dptx-button widget-upload",
    });
    const hint = element("span", { className: "dptx-hint" }, "or drop or paste one here");
    this.sent = element("progress", { "aria-label": "Sending the file" });
    this.words = element("span", { className: "dptx-hint" });
    const stop = button("Cancel", "Stop sending the file", () => source.cancel());
    this.row = element("div", { className: "dptx-row dptx-upload-sending", hidden: true }, this.sent, this.words, stop);
    this.root.dataset.state = "ready"; // it has no data of its own to wait for
    this.root.append(
      element("div", { className: "dptx-row" }, choose, hint, this.input),
      this.row,
      this.waiting.node,
      this.status.node,
    );
    this.watchDrops();
  }

  watchDrops() {
    const { root } = this;
    /** @param {boolean} over */
    const mark = (over) => root.classList.toggle("dptx-upload-over", over);
    root.addEventListener("dragover", (event) => {
      if (!event.dataTransfer?.types.includes("Files")) return;
      event.preventDefault(); // says that it can be dropped here
      event.stopPropagation();
      mark(true);
    });
    root.addEventListener("dragleave", () => mark(false));
    root.addEventListener("drop", (event) => {
      event.preventDefault();
      event.stopPropagation();
      mark(false);
      this.take(event.dataTransfer?.files);
    });
    root.addEventListener("paste", (event) => {
      event.stopPropagation();
      if (event.clipboardData?.files.length) this.take(event.clipboardData.files);
      else this.source.link.report("The clipboard holds no image.", { failed: true });
    });
  }

  /** @param {FileList | null | undefined} files */
  take(files) {
    if (files?.length) this.source.send(files[0]);
  }

  /** @override */
  connect() {
    this.showSending();
  }

  /**
   * @override
   * @param {string} event
   */
  onEvent(event) {
    if (event === "error" && !this.source.link.status.cancelled) this.source.sending = null;
    this.showSending();
  }

  showSending() {
    const { sending } = this.source;
    this.row.hidden = !sending;
    if (!sending) return;
    const { file, sent } = sending;
    this.sent.max = file.size || 1;
    this.sent.value = sent;
    setText(this.words, `Sending ${file.name}: ${megabytes(sent)} of ${megabytes(file.size)} MB`);
  }
}

export default defineWidget(UploadSource, UploadView);
