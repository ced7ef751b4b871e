// Sets of small numbers as people write them: 0-11,13.

export function parseRanges(text: string): Set<number> {
  const numbers = new Set<number>();
  for (const part of text.split(",").filter((piece) => piece !== "")) {
    const match = /^(\d+)(?:-(\d+))?$/.exec(part);
    if (match === null) throw new Error(`${part} is no number and no range like 3-7`);
    const first = Number(match[1]);
    const last = Number(match[2] ?? match[1]);
    if (last < first) throw new Error(`the range ${part} ends before it begins`);
    for (let number = first; number <= last; number++) numbers.add(number);
  }
  return numbers;
}

export function formatRanges(numbers: Iterable<number>): string {
  const parts: string[] = [];
  const sorted = [...numbers].sort((a, b) => a - b);
  for (let at = 0; at < sorted.length; ) {
    const first = sorted[at] as number;
    let end = at;
    while (sorted[end + 1] === (sorted[end] as number) + 1) end++;
    const last = sorted[end] as number;
    parts.push(last === first ? `${first}` : `${first}-${last}`);
    at = end + 1;
  }
  return parts.join(",");
}
