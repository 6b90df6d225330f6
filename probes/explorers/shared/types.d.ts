// Types that several modules share: what travels between kernel and browser, and what describes an image's tokens.

import type { Origin } from "./origin.js";

/** The anywidget model: the traits of the Python widget, and custom messages to and from it. */
export interface AnyModel<Traits extends object = Record<string, any>> {
  get<Name extends keyof Traits & string>(name: Name): Traits[Name];
  set<Name extends keyof Traits & string>(name: Name, value: Traits[Name]): void;
  save_changes(): void;
  on(event: string, handler: (...values: any[]) => void): void;
  off(event: string, handler: (...values: any[]) => void): void;
  send(message: object, callbacks?: undefined, parts?: Part[]): void;
  /** True on a page written by to_html(), which has no kernel. */
  readonly onPage?: boolean;
  /** The page written by to_html(), with the state of now. */
  pageSource?(): string;
}

/** What anywidget calls: initialize() once per model, render() once per display. */
export interface Widget {
  initialize(context: { model: AnyModel<any> }): (() => void) | undefined;
  render(context: { model: AnyModel<any>; el: HTMLElement }): () => void;
}

/** One binary part of a message. Jupyter passes views at any byte offset. */
export type Part = ArrayBuffer | ArrayBufferView<ArrayBuffer>;

/** A reply of the kernel. `seq` and `client` repeat those of the request. */
export interface Message {
  kind: string;
  seq?: number;
  client?: string;
}

/** The kernel could not answer the request `asked`. The widget offers to try again unless `retry` is false. */
export interface ErrorMessage extends Message {
  kind: "error";
  asked: string;
  text: string;
  retry?: boolean;
  /** The user cancelled it, or interrupted the kernel. */
  cancelled?: boolean;
}

/** How far the request `asked` is. */
export interface ProgressMessage extends Message {
  text: string;
  /** Where in a pass the model is, e.g. "block 7 of 24"; absent outside a pass. */
  stage?: string;
  /** Parts of `total` that are done. */
  done?: number;
  total?: number;
  /** False if the kernel reads no message before it has replied. */
  cancellable?: boolean;
}

/** A request that a view waits for. */
export interface Wait {
  kind: string;
  /** When it was sent, by performance.now(). */
  since: number;
  text: string;
  stage: string;
  done: number;
  /** 0 if it is not known how much there is to do. */
  total: number;
  /** Cancels all requests of the view; null if one is being cancelled, or none can be. */
  cancel: (() => void) | null;
  /** False if only an interrupt of the kernel stops it. */
  stoppable: boolean;
}

/** An image file in the message's first part. */
export interface ImageMessage extends Message {
  kind: string;
  type: string;
}

/** How copied Python gets the model and the image. */
export interface PythonCode {
  /** Imports and other lines before all others. */
  setup: string[];
  /** Expressions for the model and the image. */
  model: string;
  image: string;
}

/** The first reply to an explorer of one image: its size, and what was not captured. */
export interface PictureMessage extends ImageMessage {
  kind: "picture";
  width: number;
  height: number;
  /** Why "depth", "attention" or "tokens" cannot be shown, by group. */
  absent: Record<string, string>;
  /** Python that computes the depth. */
  call: string;
  /** For saved files. */
  origin: Origin;
  /** Python that opens the stored capture; absent for a live model. */
  opened?: string;
  /** How copied Python gets the model and the image. */
  code?: PythonCode;
}

/** The state of the status strip. */
export interface Status {
  text: string;
  /** Where in a pass the model is, or "". */
  stage: string;
  busy: boolean;
  failed: boolean;
  /** The request did not fail by itself: the user ended it. */
  cancelled: boolean;
  /** The kernel of this view is gone. */
  lost: boolean;
  /** Sends the failed request again; null where that cannot help. */
  retry: (() => void) | null;
  /** A file that the browser may not have saved; null leaves the one that is offered. */
  offer: OfferedFile | null;
  /** Something else that the user may want next; null for nothing. */
  more: { text: string; title: string; run: () => void } | null;
}

/** A file on the page, to be saved by hand. */
export interface OfferedFile {
  name: string;
  blob: Blob;
}

/** Tokens over an image: `prefix` tokens (class token, registers) first, then the patches row by row. */
export interface Grid {
  rows: number;
  cols: number;
  prefix: number;
}

/** A rectangle of patches. */
export interface Piece {
  row: number;
  col: number;
  rows: number;
  cols: number;
}

/** The smallest and the largest value of an array. */
export interface Extent {
  low: number;
  high: number;
}

/** Values to positions on a colour bar; see scale.js. */
export interface Scale extends Extent {
  kind: "linear" | "log" | "signed-log";
  /** signed-log: magnitudes up to this one lie in the middle. */
  floor: number;
}

/** Any flat array of numbers. */
export type Numbers = Float32Array | Float64Array | Uint16Array | Int32Array;

/** 256 colours as RGBA bytes packed for a Uint32Array over ImageData. */
export type ColourTable = Uint32Array<ArrayBuffer>;
