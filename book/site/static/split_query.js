var splitQuery = (query) => {
  const terms = Search._index?.terms ?? {}, titles = Search._index?.titleterms ?? {};
  const known = (word) => Object.hasOwn(terms, word) || Object.hasOwn(titles, word);
  const cut = (han) => {
    const words = [];
    for (let i = 0; i < han.length; ) {
      let n = Math.min(8, han.length - i);
      while (n > 0 && !known(han.slice(i, i + n))) n--;
      if (n > 0) words.push(han.slice(i, i + n));
      i += n || 1;
    }
    return words.length > 0 ? words : [han];
  };
  const pieces = query.match(/\p{Script=Han}+|[\p{Letter}\p{Number}_\p{Emoji_Presentation}--\p{Script=Han}]+/gv) ?? [];
  return pieces.flatMap((piece) => (/^\p{Script=Han}/u.test(piece) ? cut(piece) : [piece]));
};
