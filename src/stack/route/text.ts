/** Text of an object as requests carry it: one character per byte of its UTF-8. */
export function latin1OfUtf8(text: string): string {
  for (let i = 0; i < text.length; i++)
    if (text.charCodeAt(i) > 0x7f) return Buffer.from(text, "utf8").toString("latin1");
  return text;
}

/** The other way; bytes that are no UTF-8 become U+FFFD. */
export function utf8OfLatin1(bytes: string): string {
  for (let i = 0; i < bytes.length; i++)
    if (bytes.charCodeAt(i) > 0x7f) return Buffer.from(bytes, "latin1").toString("utf8");
  return bytes;
}
