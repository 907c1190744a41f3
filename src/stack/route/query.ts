/**
 * The first value of a query parameter in a path with query, decoded as forms are (WHATWG URL §5.1: "+" is a space, "%41" is
 * "A", one character per byte); null without the parameter. "a" and "a=" are both empty.
 */
export function queryValue(path: string, name: string): string | null {
  let at = path.indexOf("?") + 1;
  if (at === 0) return null;
  while (at <= path.length) {
    let stop = path.indexOf("&", at);
    if (stop === -1) stop = path.length;
    let equals = path.indexOf("=", at);
    if (equals === -1 || equals > stop) equals = stop;
    if (formDecoded(path.slice(at, equals)) === name && stop > at)
      return formDecoded(path.slice(equals + 1, stop));
    at = stop + 1;
  }
  return null;
}

export function formDecoded(text: string): string {
  if (!text.includes("%") && !text.includes("+")) return text;
  // What is no escape stays as it is.
  return text
    .replaceAll("+", " ")
    .replace(/%([0-9A-Fa-f]{2})/g, (_, hex: string) => String.fromCharCode(Number.parseInt(hex, 16)));
}
