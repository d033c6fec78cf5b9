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
  return query
    .split(/[^\p{Letter}\p{Number}_\p{Emoji_Presentation}]+/gu)
    .flatMap((word) => word.match(/\p{Script=Han}+|\P{Script=Han}+/gu) ?? [])
    .flatMap((run) => (/\p{Script=Han}/u.test(run) ? cut(run) : [run]));
};
