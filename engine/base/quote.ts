// Text that came from outside, as it can be shown in an error: quoted, on one line, of bounded
// length, whatever is in it.

const MAX_SHOWN = 60;

export function quote(text: string): string {
  return JSON.stringify(text.length > MAX_SHOWN ? `${text.slice(0, MAX_SHOWN)}…` : text);
}
