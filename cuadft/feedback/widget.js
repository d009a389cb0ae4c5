// The browser's side of widget.py: keys, messages to the kernel, and the draft of what is not saved yet.

const SHORTCUTS = { 1: "left", a: "left", 2: "right", b: "right", h: "help" };
for (const [key, name] of ACTIONS) SHORTCUTS[key] = name;
const VERDICTS = ["left", "right", "tie", "both_wrong", "skip"];
const EDITS = { left: "Edit answer 1", right: "Edit answer 2", both_wrong: "Write the right answer" };
const STEPS = { ArrowUp: -60, ArrowDown: 60, PageUp: -300, PageDown: 300 }; // pixels
const PATIENCE = 4000; // milliseconds without a reply until the annotator is told
const NO_REPLY = "No reply yet: this is not saved. If the notebook's kernel is busy, wait until its cell has ended; " +
  "if it has stopped, run the notebook again. Every verdict before this one is saved.";

class Annotation {
  constructor(model, el) {
    Object.assign(this, { model, screen: {}, draft: {}, mode: "", waiting: null, spent: 0, since: null, parts: null });
    this.words = model.get("words");
    this.alert = h("div", { role: "alert", class: "alert" });
    this.note = h("div", { "aria-live": "polite", class: "note" });
    [this.head, this.main, this.help] = [h("header"), h("main"), helpTable(this.words)];
    this.root = h("div", { class: "cuadft-annotate", tabindex: 0, role: "application",
      "aria-label": "Judge pairs of answers. Press question mark for the keys.",
      keydown: (event) => this.onKey(event), mousedown: (event) => this.onMouse(event) },
    this.head, this.main, this.help);
    el.append(this.root);
    this.listen([model, "change:screen", () => this.update()]);
    this.listen([document, "visibilitychange", () => this.clock()]);
    this.listen([window, "keydown", (event) => this.claim(event), true]);
    this.update();
  }

  listen([target, ...listener]) {
    target.addEventListener ? target.addEventListener(...listener) : target.on(...listener);
    const stop = () => (target.removeEventListener ? target.removeEventListener(...listener) : target.off(...listener));
    (this.stops ??= [() => clearTimeout(this.waiting)]).push(stop);
  }

  /** Take what the kernel says: a new pair, or that something on the pair shown went wrong. */
  update() {
    const before = this.screen.ticket, inside = this.root.contains(document.activeElement), kept = this.model.get("draft");
    const screen = this.screen = this.model.get("screen");
    clearTimeout(this.waiting);
    this.waiting = null;
    this.root.classList.remove("waiting");
    this.alert.textContent = screen.error;
    this.head.replaceChildren(...headLine(screen, () => this.send({ act: "name", name: "" })).filter(Boolean));
    if (screen.ticket === before) return this.say(screen.note);
    const fresh = { ticket: screen.ticket, edited: null, span: null, comment: "" };
    this.draft = kept.ticket === screen.ticket ? { ...kept } : fresh;
    Object.assign(this, { mode: "", spent: 0, since: null, parts: null });
    this.clock();
    this.say(screen.note);
    this.root.classList.remove("picking");
    if (inside) this.root.focus({ preventScroll: true }); // before what has the focus is taken away
    this.build(inside);
    if (inside) this.head.scrollIntoView({ block: "nearest" });
  }

  build(inside) {
    const { screen } = this, show = (nodes) => this.main.replaceChildren(...nodes, this.alert, this.note);
    this.root.tabIndex = screen.kind === "name" ? -1 : 0; // there Tab goes straight to the field
    if (screen.kind === "name") show(nameScreen(screen, (name) => this.start(name)));
    if (screen.kind === "name" && inside) this.main.querySelector("input").focus();
    if (screen.kind === "end") show(endScreen(screen, () => this.act("undo")));
    if (screen.kind !== "pair") return;
    this.parts = pairScreen(screen, this.words, (name) => this.act(name), (side) => this.edit(side));
    show(this.parts.nodes);
    this.refresh();
    if (!screen.note) this.say(`Pair ${screen.progress.done + 1} of ${screen.progress.total}`);
    const { pane } = this.parts, first = pane.querySelector(".left, .right, .both");
    if (first) pane.scrollTop = first.offsetTop - pane.clientHeight / 4;
    if (this.draft.edited !== null) this.edit(this.draft.base);
  }

  refresh() {
    const { span, comment, edited } = this.draft;
    fillPane(this.parts.pane, this.screen.stretches, span);
    const drop = (label, change) => button("", `${label} ×`, () => { this.write(change); this.root.focus(); }, { class: "chip" });
    this.parts.chips.replaceChildren(...[
      span && drop("Evidence marked", { span: null }),
      comment && this.mode !== "comment" && drop(`Comment: ${comment}`, { comment: "" }),
      edited !== null && this.mode !== "edit" && drop("Edit not saved (e: go on with it)", { edited: null }),
    ].filter(Boolean));
  }

  /** Keep part of the draft; it lies in the widget's model, so that a reloaded page has it again. */
  write(change) {
    Object.assign(this.draft, change);
    this.model.set("draft", { ...this.draft });
    this.model.save_changes();
    this.refresh();
  }

  say(text) { this.note.textContent = text; }

  /** Add up the time for which the page is in sight. */
  clock() {
    if (this.since !== null) this.spent += performance.now() - this.since;
    this.since = document.hidden ? null : performance.now();
  }

  send(message) {
    if (this.waiting) return;
    this.waiting = setTimeout(() => { this.alert.textContent = NO_REPLY; }, PATIENCE);
    this.root.classList.add("waiting");
    this.model.send({ ...message, ticket: this.screen.ticket });
  }

  start(name) {
    if (name.trim()) this.send({ act: "name", name });
    else this.say("Type a name first.");
  }

  judge(verdict, edited = null) {
    this.clock();
    const { span, comment } = this.draft;
    this.send({ act: "judge", verdict, edited, span, comment, seconds: Math.round(this.spent / 10) / 100 });
  }

  act(name) {
    if (this.waiting) return;
    if (name === "help") this.toggleHelp();
    else if (name === "undo") this.send({ act: "undo" });
    else if (this.screen.kind !== "pair") return;
    else if (this.mode === "pick" && name in EDITS) this.edit(name);
    else if (this.mode === "edit" && name === this.draft.base) this.confirm();
    else if (VERDICTS.includes(name)) this.judge(name);
    else this[name](); // edit, mark or comment
  }

  toggleHelp() {
    this.help.hidden = !this.help.hidden;
    if (!this.help.hidden) this.help.scrollIntoView({ block: "nearest" });
  }

  edit(base = this.draft.edited === null ? null : this.draft.base) {
    if (!base) return this.pick();
    const given = { left: this.screen.answers[0], right: this.screen.answers[1], both_wrong: "" };
    if (this.draft.edited === null || this.draft.base !== base) this.write({ base, edited: given[base] });
    const field = h("textarea", { rows: 4, input: () => this.write({ edited: field.value }) });
    const none = () => { this.write({ edited: this.words.refusal }); field.value = this.words.refusal; field.focus(); };
    this.open("edit", EDITS[base], field, this.draft.edited, [
      button("Enter", "Save as verdict", () => this.confirm(), { class: "primary" }),
      button("", `The ${this.words.document} has no such ${this.words.clause}`, none), button("Esc", "Back", () => this.close())]);
  }

  pick() {
    this.mode = "pick";
    this.root.classList.add("picking");
    this.say("Edit which answer? 1 or 2: the one that comes closer; w: both are wrong, write your own; Esc: back.");
  }

  confirm() {
    if (this.mode === "comment") this.close();
    else if (this.draft.edited.trim()) this.judge(this.draft.base, this.draft.edited.trim());
    else this.say("The answer is empty: write it, or press Esc to go back.");
  }

  comment() {
    const field = h("textarea", { rows: 2, input: () => this.write({ comment: field.value }) });
    this.open("comment", "Comment, saved with your verdict", field, this.draft.comment,
      [button("Enter", "Back to the verdict", () => this.close(), { class: "primary" })]);
  }

  open(mode, title, field, text, buttons) {
    this.mode = mode;
    this.root.classList.remove("picking");
    field.value = text;
    this.parts.panel.replaceChildren(h("label", null, h("span", null, title), field), bar(...buttons));
    this.refresh();
    this.say("");
    field.focus();
    this.parts.panel.scrollIntoView({ block: "nearest" });
  }

  close() {
    this.mode = "";
    this.root.classList.remove("picking");
    this.root.focus();
    this.parts.panel.replaceChildren();
    this.refresh();
    this.say("");
  }

  mark() {
    const span = selectedSpan(this.parts.pane);
    if (span === "apart") return this.say("Mark words of one passage: the text between two passages is not shown.");
    if (!span) return this.say(`Select words of the ${this.words.document} first, by mouse (or by keys, after F7 in most browsers).`);
    window.getSelection().removeAllRanges();
    this.write({ span });
    this.root.focus();
    this.say("Marked as the true evidence; saved with your verdict.");
  }

  onKey(event) {
    if (saves(event)) return;
    event.stopPropagation();
    if (event.isComposing || (event.repeat && !(event.key in STEPS))) return;
    if (event.key === "Escape" && this.mode) return this.close();
    const field = event.target.closest("textarea, input");
    if (field?.tagName === "TEXTAREA" && event.key === "Enter" && !event.shiftKey) { event.preventDefault(); this.confirm(); }
    if (field || event.ctrlKey || event.metaKey || event.altKey) return;
    const name = SHORTCUTS[event.key.toLowerCase()], step = STEPS[event.key];
    if (name || step) event.preventDefault();
    if (step && this.parts) this.parts.pane.scrollTop += step;
    if (name) this.act(name);
  }

  /** Let a click on a button neither take the selection away nor leave the keys to the notebook. */
  onMouse(event) {
    if (!event.target.closest("button")) return;
    event.preventDefault();
    if (!this.root.contains(document.activeElement)) this.root.focus({ preventScroll: true });
  }

  /** Older versions of JupyterLab read keys before any cell does, unless this attribute is there. */
  claim(event) { this.root.toggleAttribute("data-lm-suppress-shortcuts", !saves(event)); }
}

/** Tell whether a key saves the notebook: that stays JupyterLab's. */
function saves(event) { return (event.ctrlKey || event.metaKey) && event.key.toLowerCase() === "s"; }

function render({ model, el }) {
  const shown = new Annotation(model, el);
  return () => shown.stops.forEach((stop) => stop());
}

export default { render };
