// What the annotation widget's screens are built of. Everything shown is set as text, never as HTML.
// widget.py beside it joins this file and widget.js into the one module that the browser gets.

const keys = ({ document: text }) => [
  ["1 or a", "answer 1 is better"], ["2 or b", "answer 2 is better"], ["t", "equally good"], ["w", "both wrong"],
  ["e", "edit the better answer (Enter saves it as your verdict, Shift+Enter begins a line, Esc goes back)"],
  ["m", `mark the selected words of the ${text} as the true evidence (select by mouse, or by keys after F7)`],
  ["c", "comment (Enter goes back)"], ["s", "skip this pair"], ["u", "take back your last verdict"],
  ["↑ ↓ PgUp PgDn", `scroll the ${text}`], ["Tab", "go to the next button, and out of the widget"],
  ["? or h", "show or hide these keys"],
];
const ACTIONS = [["t", "tie", "Equally good"], ["w", "both_wrong", "Both wrong"], ["e", "edit", "Edit"], ["m", "mark", "Mark"],
  ["c", "comment", "Comment"], ["s", "skip", "Skip"], ["u", "undo", "Undo"], ["?", "help", "Keys"]];
const CITED = { left: "cited by answer 1", right: "cited by answer 2", both: "cited by both" };

/** Make an element; functions become listeners, strings text, and null or false children are left out. */
function h(tag, attributes, ...children) {
  const node = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes ?? {})) {
    if (typeof value === "function") node.addEventListener(name, value);
    else if (value !== false && value != null) node.setAttribute(name, value === true ? "" : value);
  }
  node.append(...children.filter((child) => child != null && child !== false));
  return node;
}

function button(key, label, click, attributes) {
  const shown = key ? [h("kbd", { "aria-hidden": "true" }, key), " "] : [];
  return h("button", { type: "button", "aria-keyshortcuts": key || null, click, ...attributes }, ...shown, label);
}

const bar = (...buttons) => h("div", { class: "bar" }, ...buttons);

function helpTable(words) {
  const rows = keys(words).map(([key, what]) => h("tr", null, h("th", { scope: "row" }, h("kbd", null, key)), h("td", null, what)));
  return h("table", { class: "help", hidden: true, "aria-label": "Keys" }, h("tbody", null, ...rows));
}

function headLine(screen, change) {
  const { total, done, skipped, agreement } = screen.progress;
  const counts = `${done} done${skipped ? ` (${skipped} skipped)` : ""} · ${total - done} left`;
  return [h("progress", { max: total || 1, value: done, "aria-label": `${done} of ${total} done` }), h("span", null, counts),
    screen.annotator && button("", screen.annotator, change, { class: "chip", title: "Change the annotator" }),
    h("div", { class: "agreement" }, agreement)];
}

function nameScreen(screen, start) {
  const field = h("input", { type: "text", maxlength: 80, list: "cuadft-names", autocomplete: "off" });
  field.addEventListener("keydown", (event) => event.key === "Enter" && start(field.value));
  return [h("label", { class: "panel" }, h("span", null, "Your name, as it shall stand beside your verdicts"), field),
    h("datalist", { id: "cuadft-names" }, ...screen.names.map((value) => h("option", { value }))),
    bar(button("Enter", "Start", () => start(field.value), { class: "primary" }))];
}

function endScreen(screen, undo) {
  const { total } = screen.progress;
  return [h("h3", null, total ? `All ${total} pairs are done. Thank you.` : "There is no pair to judge."),
    bar(total > 0 && button("u", "Undo", undo))];
}

/** Build the screen of a pair; returns its nodes and those that change: the passages, the chips and the panel. */
function pairScreen(screen, words, act, edit) {
  const pane = h("div", { class: "passages", tabindex: 0, role: "document", "aria-label": `Passages of the ${words.document}` });
  const chips = h("div", { class: "chips" }), panel = h("div", { class: "panel" });
  const used = Object.keys(CITED).filter((tone) => screen.stretches.some(({ pieces }) => pieces.some((p) => p[2] === tone)));
  const legend = h("div", { class: "legend" }, ...used.map((tone) => h("span", { class: tone }, CITED[tone])),
    h("span", { class: "marked" }, "marked by you"));
  const actions = ACTIONS.map(([key, name, label]) => button(key, label, () => act(name)));
  const nodes = [h("div", { class: "asked" }, h("div", { class: "contract" }, screen.contract), h("h3", null, screen.question)),
    h("div", { class: "text" }, pane, legend),
    h("div", { class: "answers" }, card(screen, words, "left", 1, act, edit), card(screen, words, "right", 2, act, edit)),
    h("div", { class: "verdict" }, chips, panel, bar(...actions))];
  return { nodes, pane, chips, panel };
}

function card(screen, words, side, number, act, edit) {
  const none = screen.cites[number - 1] ? "" : `cites no words of the ${words.document}`;
  return h("section", { class: `card ${side}`, "aria-label": `Answer ${number}` },
    h("h4", null, `Answer ${number}`, h("small", null, none)),
    h("div", { class: "answer" }, screen.answers[number - 1] || "(empty answer)"),
    bar(button(String(number), "is better", () => act(side), { class: "primary", "aria-label": `Answer ${number} is better` }),
      button("", "Edit", () => edit(side), { "aria-label": `Edit answer ${number}` })));
}

/** Fill the pane with the stretches of contract, each piece carrying its offset; keeps the place that is read. */
function fillPane(pane, stretches, span) {
  const at = pane.scrollTop;
  pane.replaceChildren(...stretches.map((stretch) => h("p", null, ...withMark(stretch.pieces, span).map(
    ([text, start, tone, marked]) => h("span", { "data-start": start, class: `${tone} ${marked ? "marked" : ""}` }, text)))));
  pane.scrollTop = at;
}

/** Cut the pieces [text, start, tone] where the marked span begins and ends, and say of each whether it is marked. */
function withMark(pieces, span) {
  return pieces.flatMap(([text, start, tone]) => {
    const points = [...text]; // code points, as Python counts
    const [low, high] = span ? [Math.max(span[0] - start, 0), Math.min(span[1] - start, points.length)] : [0, 0];
    if (low >= high) return [[text, start, tone, false]];
    return [[0, low, false], [low, high, true], [high, points.length, false]].filter(([a, b]) => a < b)
      .map(([a, b, marked]) => [points.slice(a, b).join(""), start + a, tone, marked]);
  });
}

/** Return the contract offsets of the words selected in the pane, without blanks at the ends.
 *  Returns null if there are none, "apart" if they reach over text that is not shown. */
function selectedSpan(pane) {
  const selection = window.getSelection(), length = (text) => [...text].length, found = [];
  if (!selection.rangeCount || selection.isCollapsed) return null;
  const range = selection.getRangeAt(0);
  for (const piece of pane.querySelectorAll("[data-start]")) {
    const node = piece.firstChild;
    if (!range.intersectsNode(node)) continue;
    const from = range.startContainer === node ? range.startOffset : 0;
    const text = node.data.slice(from, range.endContainer === node ? range.endOffset : node.length);
    if (text) found.push([Number(piece.dataset.start) + length(node.data.slice(0, from)), text, piece.parentNode]);
  }
  const text = found.map((piece) => piece[1]).join("");
  if (!text.trim()) return null;
  if (found[0][2] !== found.at(-1)[2]) return "apart";
  const start = found[0][0] + length(text) - length(text.trimStart());
  return [start, start + length(text.trim())];
}
