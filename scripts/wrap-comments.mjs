// Wraps comments that are longer than a line of code may be: Biome leaves comments alone, and
// clang-format has only C++. From an overlong line on it fills lines up to the paragraph's end;
// what is indented further (lists, diagrams, columns) is broken but never joined.

export const MAX_COLUMNS = 100;
/** A line shorter than this ended its paragraph. */
const FULL_COLUMNS = 80;

export function wrapComments(text) {
  const lines = text.split("\n").flatMap(openOneLiner);
  const result = [];
  while (lines.length > 0) {
    const line = lines.shift();
    const comment = parse(line);
    if (comment === null || line.length <= MAX_COLUMNS) {
      result.push(line);
      continue;
    }
    const words = comment.text.split(" ");
    const hang = " ".repeat(comment.lead.length);
    let last = line;
    while (last.length >= FULL_COLUMNS && !last.endsWith(".")) {
      const next = lines[0] === undefined ? null : parse(lines[0]);
      if (next === null || next.prefix !== comment.prefix || next.lead !== hang) break;
      if (/^[|@]/.test(next.text)) break;
      last = lines.shift();
      words.push(...next.text.split(" "));
    }
    result.push(...fill({ prefix: comment.prefix, lead: comment.lead, hang, words }));
  }
  return result.join("\n");
}

/** `/** text *\/` that is too long for its line becomes a block. */
function openOneLiner(line) {
  const match = /^(\s*)\/\*\* (.*) \*\/$/.exec(line);
  if (match === null || line.length <= MAX_COLUMNS) return [line];
  return [`${match[1]}/**`, `${match[1]} * ${match[2]}`, `${match[1]} */`];
}

/** `lead`: indentation, the list's marker, and a first column if there is one. */
function parse(line) {
  const match = /^(\s*(?:\/\/\/?|\*(?!\/)))(\s+(?:(?:\d+\.|[-*])\s+)?(?:\S+\s{2,})?)(\S.*)$/.exec(
    line,
  );
  return match === null ? null : { prefix: match[1], lead: match[2], text: match[3] };
}

function fill({ prefix, lead, hang, words }) {
  const lines = [];
  let line = prefix + lead + words[0];
  for (const word of words.slice(1)) {
    if (line.length + 1 + word.length > MAX_COLUMNS) {
      lines.push(line);
      line = prefix + hang + word;
    } else {
      line += ` ${word}`;
    }
  }
  return [...lines, line];
}
