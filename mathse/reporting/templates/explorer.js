"use strict";
// Paths and test answers: filters, order and drawing. listing.py has the format of the data.
//
// The view is in the page's address behind "#gallery?", so every view is a link:
//   stage, verdict, judge, right, kind, origin, words, sort    the filters of the form
//   problem [, path]                                           a problem through all stages
//   from, to, change                                           the test problems that a student learned or unlearned
// Texts come from models and data sets: they become text nodes. Only formulas are markup, and formulas.py wrote it.

const explorer = document.getElementById("explorer");
if (explorer) {
  const PAGE = 24; // cards added at a time
  const KEPT = 80; // parts in memory
  const DECISIONS = ["accepted", "rejected", "unparsed"];
  const ORIGINS = { teacher: "the teacher", student: "the student", reflection: "reflection" };
  const CHANGES = {
    wrong_correct: "wrong before, right after", correct_wrong: "right before, wrong after",
    correct_correct: "right before and after", wrong_wrong: "wrong before and after",
  };
  const form = document.getElementById("filters");
  const cards = document.getElementById("cards");
  const status = document.getElementById("shown");
  const heading = document.getElementById("chosen");
  const moreButton = document.getElementById("more");
  const inside = JSON.parse(document.getElementById("listing").textContent);
  const folder = explorer.dataset.parts;

  // --- parts ---

  let index = inside.index;
  let parts = new Map(Object.entries(inside).map(([name, part]) => [name, Promise.resolve(part)]));
  let isWhole = false; // whether the index has all paths
  const waiting = new Map();
  window.mathse = (name, value) => waiting.get(name)?.(value);

  const load = (name) => new Promise((resolve, reject) => {
    waiting.set(name, resolve);
    const script = element("script", { src: `${encodeURIComponent(folder)}/${name}.js` });
    script.onload = () => { script.remove(); reject(new Error(`${folder}/${name}.js holds no such part`)); };
    script.onerror = () => { script.remove(); reject(new Error(`${folder}/${name}.js cannot be read`)); };
    document.head.append(script);
  });

  // The value of a number, and the formulas of its texts.
  const valueOf = async (kind, number) => {
    const starts = index.parts[kind];
    let low = 0;
    for (let high = starts.length; high - low > 1;) {
      const middle = (low + high) >> 1;
      if (starts[middle] <= number) low = middle; else high = middle;
    }
    const name = `${kind}_${String(low).padStart(4, "0")}`;
    const part = parts.get(name) || load(name);
    parts.delete(name);
    parts.set(name, part); // the part used last comes last
    if (isWhole && parts.size > KEPT) parts.delete(parts.keys().next().value);
    const { stamp, values, formulas } = await part;
    if (stamp !== index.stamp) throw new Error("the run has gone on since this page was opened: load it again");
    return { value: values[number - starts[low]], formulas };
  };

  // --- the view ---

  const fromAddress = () => {
    const [anchor, query] = location.hash.slice(1).split(/\?(.*)/s);
    return anchor === "gallery" && query !== undefined ? Object.fromEntries(new URLSearchParams(query)) : null;
  };
  const address = (view) => {
    const known = Object.entries(view).filter(([, value]) => value);
    return `#gallery?${new URLSearchParams(known)}`;
  };
  const fields = ["stage", "verdict", "judge", "right", "kind", "origin", "sort", "words"];
  const fromForm = () => Object.fromEntries(fields.map((name) => [name, form.elements[name].value]));

  const options = (select, named) => {
    const before = select.value;
    select.replaceChildren(select.options[0], ...named.map(([value, text]) => element("option", { value }, text)));
    select.value = before;
    if (select.selectedIndex < 0) select.selectedIndex = 0;
  };
  const fillForm = () => {
    const many = (group) => (group.all > group.rows ? `${group.rows.toLocaleString("en")} of ${group.all.toLocaleString("en")}` : group.rows.toLocaleString("en"));
    options(form.elements.stage, index.groups.map((group) => [group.title, `${group.title} (${many(group)})`]));
    options(form.elements.kind, [...index.kinds].sort().map((kind) => [kind, kind]));
    options(form.elements.origin, index.origins.map((origin) => [origin, ORIGINS[origin] || origin]));
  };

  // --- rows and their order ---

  // Whether the judge accepted a right path or rejected a wrong path; null if verdict or truth is not known.
  const judgeRight = (row) => {
    const [decision, right] = [index.decision[row], index.right[row]];
    return right < 0 || decision < 0 || decision === 2 ? null : (decision === 0) === (right === 1);
  };

  const rowsOf = (view) => {
    const group = index.groups.findIndex(({ title }) => title === view.stage);
    const kind = index.kinds.indexOf(view.kind);
    const origin = index.origins.indexOf(view.origin);
    const isTest = index.groups.map(({ student }) => student !== null);
    const rows = [];
    for (let row = 0; row < index.problem.length; row += 1) {
      if (view.stage ? index.group[row] !== group : isTest[index.group[row]]) continue;
      if (view.verdict && (DECISIONS[index.decision[row]] || "none") !== view.verdict) continue;
      if (view.judge && judgeRight(row) !== (view.judge === "right")) continue;
      if (view.right && index.right[row] !== Number(view.right === "right")) continue;
      if (view.kind && index.kind[index.problem[row]] !== kind) continue;
      if (view.origin && index.origin[row] !== origin) continue;
      rows.push(row);
    }
    return ordered(rows, view.sort);
  };

  const ordered = (rows, sort) => {
    if (sort === "low" || sort === "high") {
      const sign = sort === "low" ? 1 : -1;
      const known = rows.filter((row) => index.score[row] !== null);
      known.sort((a, b) => sign * (index.score[a] - index.score[b]) || a - b);
      return [...known, ...rows.filter((row) => index.score[row] === null)];
    }
    if (sort === "written") return rows;
    // Mixed: from each kind of outcome in turn, so that rare mistakes of the judge come first.
    const piles = new Map();
    for (const row of rows) {
      const outcome = `${index.decision[row]} ${index.right[row]}`;
      if (!piles.has(outcome)) piles.set(outcome, []);
      piles.get(outcome).push(row);
    }
    const mixed = [];
    const longest = Math.max(0, ...[...piles.values()].map((pile) => pile.length));
    for (let turn = 0; turn < longest; turn += 1) {
      for (const pile of piles.values()) if (turn < pile.length) mixed.push(pile[turn]);
    }
    return mixed;
  };

  // The answers before and after, for each test problem with the requested change.
  const changedRows = (view) => {
    const [from, to] = [view.from, view.to].map((student) => index.groups.findIndex((group) => group.student === student));
    const kind = index.kinds.indexOf(view.kind);
    const before = new Map();
    const [wasRight, isRight] = (view.change || "").split("_").map((name) => Number(name === "correct"));
    for (let row = 0; row < index.problem.length; row += 1) {
      if (index.group[row] === from && index.right[row] === wasRight) before.set(index.problem[row], row);
    }
    const pairs = [];
    for (let row = 0; row < index.problem.length; row += 1) {
      const problem = index.problem[row];
      if (index.group[row] === to && index.right[row] === isRight && before.has(problem) && (!view.kind || index.kind[problem] === kind)) {
        pairs.push([before.get(problem), row]);
      }
    }
    return pairs;
  };

  const stageTitle = (student) => {
    const group = index.groups.find((one) => one.student === student);
    return group ? group.title.replace("test answers, ", "") : student;
  };

  // The view as groups of rows with the same problem; each group becomes a card.
  const chosen = (view) => {
    if (view.problem !== undefined) {
      const problem = index.problems.indexOf(view.problem);
      const rows = [...index.problem.keys()].filter((row) => index.problem[row] === problem);
      return { title: "One problem through all stages", groups: rows.length ? [rows] : [] };
    }
    if (view.from && view.to) {
      const groups = changedRows(view);
      const change = CHANGES[view.change] || "";
      return { title: `${stageTitle(view.from)} to ${stageTitle(view.to)}: ${groups.length.toLocaleString("en")} test problems ${change}`, groups };
    }
    return { title: "", groups: rowsOf(view).map((row) => [row]) };
  };

  // --- drawing ---

  const drawn = (text, formulas) => text.map((piece) => {
    if (typeof piece === "string") return piece;
    const holder = document.createElement("template");
    holder.innerHTML = formulas[piece];
    return holder.content;
  });
  const plain = (text, formulas) => text.map((piece) => {
    if (typeof piece === "string") return piece;
    const holder = document.createElement("template");
    holder.innerHTML = formulas[piece];
    return (holder.content.querySelector("annotation") || holder.content).textContent;
  }).join("");

  const zoom = document.getElementById("zoom");
  const enlarge = (picture) => {
    const image = zoom.querySelector("img");
    image.src = picture.src;
    image.width = Math.min(picture.naturalWidth * Math.max(1, Math.min(4, Math.floor(window.innerWidth * 0.9 / picture.naturalWidth))), 4000);
    zoom.showModal();
  };

  const drawPicture = (picture) => {
    if (picture.missing) return element("p", { class: "nopic" }, picture.missing);
    const width = Math.min(Math.max(picture.width, 210), 320);
    const image = element("img", { src: `data:image/png;base64,${picture.png}`, alt: "the problem's picture", width, height: Math.round(picture.height * width / picture.width) });
    return element("button", { type: "button", class: "picture", "aria-label": "the problem's picture: enlarge", click: () => enlarge(image) }, image);
  };

  const drawProblem = (number, { value: problem, formulas }) => {
    const id = index.problems[number];
    if (!problem) return [element("p", { class: "nopic" }, "problem ", element("code", {}, id), ": not available here")];
    const shown = [element("div", { class: "pictures" }, ...problem.pictures.map(drawPicture)), element("p", { class: "question" }, ...drawn(problem.question, formulas))];
    if (problem.choices.length) shown.push(element("ol", { class: "choices", type: "A" }, ...problem.choices.map((choice) => element("li", {}, ...drawn(choice, formulas)))));
    if (problem.answer.length) shown.push(element("p", { class: "reference" }, "reference answer ", element("b", {}, ...drawn(problem.answer, formulas))));
    return shown;
  };

  const drawSteps = (steps, formulas) => element("ol", { class: "steps" }, ...(steps.length ? steps : [[0, ["an empty path"]]]).map(([flags, text]) => {
    const names = [flags & 1 ? "named by the judge" : "", flags & 2 ? "first wrong step" : ""].filter(Boolean).join(" · ");
    return element("li", { class: flags & 1 ? "named" : flags & 2 ? "true" : null }, ...drawn(text, formulas), names ? element("span", { class: "flag" }, names) : null);
  }));

  const drawCritique = (critique, formulas) => (critique
    ? element("details", {}, element("summary", {}, `critique${critique[0] ? ` by ${critique[0]}` : ""}`), element("p", { class: "words" }, ...drawn(critique[1], formulas)))
    : null);

  const drawRow = (row, { value, formulas }, alone) => {
    const group = index.groups[index.group[row]];
    const isTest = group.student !== null;
    const problem = index.problems[index.problem[row]];
    const [decision, right, score] = [DECISIONS[index.decision[row]], index.right[row], index.score[row]];
    let verdict;
    if (isTest) verdict = element("p", { class: "verdict" }, element("b", { class: right === 1 ? "accepted" : "rejected" }, right === 1 ? "right" : "wrong"));
    else if (!decision) verdict = element("p", { class: "verdict" }, "not judged");
    else {
      const truth = judgeRight(row);
      verdict = element("p", { class: "verdict" },
        element("span", {}, element("b", { class: decision }, decision), value.names ? `, names ${value.names}` : ""),
        truth === null ? null : element("span", { class: truth ? "ok" : "off" }, truth ? "judge right" : "judge wrong"),
        score === null ? null : element("span", { class: "p" }, `P(correct) ${score.toFixed(2)}`));
    }
    const also = value.also
      ? element("details", {}, element("summary", {}, value.also.title), drawSteps(value.also.steps, formulas), drawCritique(value.also.critique, formulas))
      : null;
    const origin = index.origins[index.origin[row]];
    const where = element("p", { class: "where" },
      alone ? `${group.title.replace("test answers", "test answer")} · ` : "", isTest ? "" : `by ${ORIGINS[origin] || origin} · `, element("code", {}, value.id), " · ",
      element("a", { href: address({ problem, path: value.id }) }, alone ? "through all stages" : "link"));
    return [alone ? null : element("h4", {}, group.title.replace("test answers", "test answer")), drawSteps(value.steps, formulas), verdict, drawCritique(value.critique, formulas), also, where];
  };

  const drawCard = (rows, problem, values, view) => {
    const number = index.problem[rows[0]];
    if (rows.length === 1 && view.problem === undefined) {
      return element("article", { class: "card", "data-group": index.groups[index.group[rows[0]]].title }, ...drawProblem(number, problem), ...drawRow(rows[0], values[0], true));
    }
    const blocks = rows.map((row, k) => element("section", { class: view.path && values[k].value.id === view.path ? "path linked" : "path" }, ...drawRow(row, values[k], false)));
    const source = problem.value ? `${problem.value.source} · ` : "";
    const where = element("p", { class: "where" }, source, element("code", {}, index.problems[number]), view.problem === undefined
      ? element("span", {}, " · ", element("a", { href: address({ problem: index.problems[number] }) }, "through all stages")) : null);
    return element("article", { class: "card whole" }, element("div", { class: "about" }, ...drawProblem(number, problem), where), element("div", { class: "through" }, ...blocks));
  };

  // --- showing ---

  const searched = (rows, problem, values) => {
    const texts = [...rows.map((row, k) => values[k].value.id), index.problems[index.problem[rows[0]]]];
    if (problem.value) {
      for (const text of [problem.value.question, problem.value.answer, ...problem.value.choices]) texts.push(plain(text, problem.formulas));
    }
    for (const { value, formulas } of values) {
      for (const shown of [value, value.also]) {
        if (!shown) continue;
        for (const [, text] of shown.steps) texts.push(plain(text, formulas));
        if (shown.critique) texts.push(plain(shown.critique[1], formulas));
      }
    }
    return texts.join("\n").toLowerCase();
  };

  let turn = 0; // number of the current request: an older request that still loads ends
  let now = { view: {}, groups: [], next: 0, shown: 0 };

  const say = () => {
    const { view, groups, next, shown } = now;
    const what = view.from ? "problems" : "paths";
    const alone = isWhole ? "" : folder ? ` A choice: the other paths are in ${folder}/, which is not beside this page.` : "";
    if (view.problem !== undefined) status.textContent = groups.length ? "" : `This problem is not here.${alone}`;
    else if (view.words) status.textContent = `${shown.toLocaleString("en")} found in the first ${next.toLocaleString("en")} of ${groups.length.toLocaleString("en")} ${what}.${alone}`;
    else status.textContent = `${shown.toLocaleString("en")} of ${groups.length.toLocaleString("en")} ${what} shown.${alone}`;
    moreButton.hidden = next >= groups.length;
    moreButton.textContent = view.words ? "Search on" : "Show more";
  };

  const showMore = async () => {
    turn += 1;
    const mine = turn;
    const words = (now.view.words || "").toLowerCase().split(/\s+/).filter(Boolean);
    try {
      for (let added = 0; now.next < now.groups.length && added < PAGE;) {
        const rows = now.groups[now.next];
        const [problem, ...values] = await Promise.all([valueOf("problems", index.problem[rows[0]]), ...rows.map((row) => valueOf("rows", row))]);
        if (mine !== turn) return;
        now.next += 1;
        const text = words.length ? searched(rows, problem, values) : "";
        if (words.every((word) => text.includes(word))) {
          cards.append(drawCard(rows, problem, values, now.view));
          now.shown += 1;
          added += 1;
        }
        if (now.next % 500 === 0) {
          say();
          await new Promise((resolve) => { setTimeout(resolve); }); // let the reader scroll or change the view
          if (mine !== turn) return;
        }
      }
      say();
    } catch (problem) {
      if (mine !== turn) return;
      say();
      status.textContent += ` ${problem.message}.`;
    }
    const linked = cards.querySelector(".linked");
    if (linked && now.view.path) linked.scrollIntoView({ block: "nearest" });
    explorer.removeAttribute("aria-busy");
  };

  const show = async (view) => {
    const { title, groups } = chosen(view);
    now = { view, groups, next: 0, shown: 0 };
    cards.replaceChildren();
    cards.classList.toggle("single", Boolean(title));
    heading.parentNode.hidden = !title;
    heading.textContent = title;
    form.hidden = Boolean(title);
    explorer.setAttribute("aria-busy", "true");
    await showMore();
  };

  let firstList = {}; // the initial filters
  let lastList = {}; // the filters before a problem was opened

  const setForm = (view) => {
    for (const name of fields) {
      form.elements[name].value = view[name] || "";
      if (form.elements[name].selectedIndex < 0) form.elements[name].selectedIndex = 0;
    }
  };

  const follow = async (move) => {
    const asked = fromAddress();
    // An address without a view means the list: Back and links to other sections lead there.
    if (asked === null && move && !form.hidden) return; // the page already shows the list
    const view = asked || lastList;
    const isList = view.problem === undefined && !view.from;
    if (isList) {
      setForm(view);
      lastList = fromForm();
    }
    document.getElementById("back").href = address(lastList);
    await show(isList ? lastList : view);
    if (!asked) return;
    (isList ? explorer.closest("section") : heading.parentNode).scrollIntoView();
    if (!isList) heading.focus({ preventScroll: true });
  };

  let typing;
  form.addEventListener("input", (event) => {
    clearTimeout(typing);
    typing = setTimeout(() => {
      lastList = fromForm();
      try { history.replaceState(null, "", address(lastList)); } catch { /* a viewer without addresses */ }
      show(lastList);
    }, event.target.name === "words" ? 250 : 0);
  });
  form.addEventListener("submit", (event) => event.preventDefault());
  form.addEventListener("reset", (event) => {
    event.preventDefault(); // an empty form would show all stages; the page begins with a single stage
    setForm(firstList);
    form.dispatchEvent(new Event("input"));
  });
  moreButton.addEventListener("click", async () => {
    const last = cards.lastElementChild;
    await showMore();
    const next = last ? last.nextElementSibling : cards.firstElementChild;
    if (moreButton.hidden && next) { // the button is hidden: move the keyboard focus to the first new card
      next.tabIndex = -1;
      next.focus({ preventScroll: true });
    }
  });
  zoom.addEventListener("click", () => zoom.close());
  window.addEventListener("hashchange", () => follow(true));

  const begin = async () => {
    if (folder) {
      try {
        const whole = await load("index");
        [index, parts, isWhole] = [whole, new Map(), true];
      } catch { /* the page was moved without its folder: it shows its own choice of paths and a note */ }
    } else isWhole = true;
    fillForm();
    // The page starts with the first round: there the student's own paths are judged for the first time.
    const titles = index.groups.filter(({ student }) => student === null).map(({ title }) => title);
    firstList = { stage: titles.includes("round 1") ? "round 1" : titles[0] };
    lastList = firstList;
    await follow(false);
    explorer.dataset.ready = "yes";
  };
  begin();
}
