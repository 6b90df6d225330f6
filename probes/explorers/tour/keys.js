// The keys of the tour.

import { ARROWS, arrowStep, KeyTable } from "#shared/keys.js";

/**
 * @typedef {object} TourActions
 * @property {(target: HTMLElement) => boolean} isInDiagram
 * @property {() => void} readPart moves the focus to the explanation
 * @property {(target: HTMLElement) => boolean} leavePart moves the focus from the explanation back; false if it is elsewhere
 * @property {(down: number, right: number) => void} goToward the nearest part in a direction
 * @property {(end: "first" | "last") => void} goToEnd
 * @property {(by: 1 | -1) => void} walk
 * @property {() => void} nextView
 */

/** @param {TourActions} actions */
export function createKeys(actions) {
  const { isInDiagram } = actions;
  return new KeyTable({
    click: { label: "click", help: "show a part" },
    arrows: {
      keys: ARROWS,
      help: "go to the nearest part in that direction",
      run: (press) => isInDiagram(press.target) && actions.goToward(...arrowStep(press, 1)),
    },
    next: { keys: ["n"], help: "next step of the walk", run: () => actions.walk(1) },
    previous: { keys: ["p"], help: "previous step of the walk", run: () => actions.walk(-1) },
    view: { keys: ["v"], help: "next picture of the part", run: actions.nextView },
    first: { keys: ["Home"], help: "first part", run: ({ target }) => isInDiagram(target) && actions.goToEnd("first") },
    last: { keys: ["End"], help: "last part", run: ({ target }) => isInDiagram(target) && actions.goToEnd("last") },
    read: {
      keys: ["Enter"],
      help: "go to the explanation of the part (Esc: back)",
      run: ({ target }) => isInDiagram(target) && actions.readPart(),
    },
    leave: { keys: ["Escape"], run: ({ target }) => actions.leavePart(target) },
  });
}
