// Texts to the token ids of BERT's uncased vocabulary, as a tokenizer.json has it.

const WORDS = /[\p{P}$+<=>^`|~]|\p{Script=Han}|[^\s\p{P}$+<=>^`|~\p{Script=Han}]+/gu;

export class WordPiece {
  constructor({ model }) {
    this.vocabulary = new Map(Object.entries(model.vocab));
    this.unknown = this.vocabulary.get(model.unk_token);
    this.prefix = model.continuing_subword_prefix;
    this.longest = model.max_input_chars_per_word;
  }

  /** [CLS] … [SEP] */
  ids(text) {
    const plain = text.normalize("NFD").replace(/\p{Mn}/gu, "").toLowerCase();
    const pieces = (plain.match(WORDS) ?? []).flatMap((word) => this.pieces(word));
    return [this.vocabulary.get("[CLS]"), ...pieces, this.vocabulary.get("[SEP]")];
  }

  /** The longest piece that the vocabulary has, then the longest of what is left, … */
  pieces(word) {
    if (word.length > this.longest) return [this.unknown];
    const found = [];
    for (let start = 0; start < word.length; ) {
      let end = word.length;
      const piece = () => (start ? this.prefix : "") + word.slice(start, end);
      while (end > start && !this.vocabulary.has(piece())) end--;
      if (end === start) return [this.unknown];
      found.push(this.vocabulary.get(piece()));
      start = end;
    }
    return found;
  }

  /** input_ids and attention_mask of several texts, int64 [texts, tokens of the longest]. */
  batch(texts) {
    const rows = texts.map((text) => this.ids(text));
    const length = Math.max(...rows.map((row) => row.length));
    const dims = [rows.length, length];
    const filled = (value) =>
      BigInt64Array.from(rows.flatMap((row) => Array.from({ length }, (_, i) => value(row, i))));
    return {
      input_ids: { data: filled((row, i) => BigInt(row[i] ?? 0)), dims },
      attention_mask: { data: filled((row, i) => BigInt(i < row.length)), dims },
    };
  }
}
