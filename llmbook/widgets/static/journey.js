import { button, editor, format, frame, h, language, number, roving, scientific, select, store } from "./base.js";
import { explain, journey } from "./explain.js";
import { flow } from "./flow.js";
import { gate, soon } from "./live.js";
import { barsOf, largestShown, matrixMap, shadedMatrix } from "./matrix.js";

const TEXT = {
  en: {
    name: "Journey of a sentence through the model", sentence: "sentence", examples: "examples", own: "your own", reset: "Reset", tokens: "Tokens", stages: "Stages of the model",
    cut: (n) => `Only the first ${n} tokens are read, so that every row can be told apart.`,
    pick: "Click a token to follow it.", hide: (token) => `Hide ${token}`, show: (token) => `Show ${token}`, special: "Special tokens cannot be hidden.",
    followed: (token, true_) => `Followed: ${token}${true_ ? `, in truth ${true_}` : ""}`, quote: (token) => `“${token}”`,
    attention: "attention: tokens read one another", feed_forward: "feed-forward: each by itself", stream: "residual stream",
    legend: (d, ff, V) => `Each picture is the real numbers: a row a token, blue positive, orange negative. Widths are in proportion to the columns (${d} in the stream, ${ff} in the hidden layer); the vocabulary of ${V} is cut short. Click a stage, or walk with the arrow keys.`,
    back: "Previous stage", on: "Next stage", of: (i, n, title) => `Stage ${i} of ${n}: ${title}.`, inBlock: (title, i) => `${title}, block ${i}`,
    heads: "Heads", nth: (i) => `head ${i}`, deepest: (x) => `deepest shade: ±${x} or more`, row: (token) => `The row of ${token}`, range: (n, low, high) => `${n} numbers from ${low} to ${high}`,
    column: { scores: "key", weights: "key", logits: "token id", probabilities: "token id", hidden: "hidden unit", other: "component" }, map: (name) => `${name}: rows are tokens, columns components`, bars: (token) => `The numbers of ${token} as bars`,
    likeliest: (token) => `Likeliest at ${token}`, greatest: (token) => `Largest logits at ${token}`, rank: (r) => `rank ${r}`, truth: "true", more: (n) => `${n} more ${n === 1 ? "token that is hidden is" : "tokens that are hidden are"} not listed: choose one to see its list.`,
    none: "Nothing is hidden: hide a token, and there is a loss.", mean: (n) => `mean of ${n}`, notHidden: "This token is not hidden and takes no part in the loss. Choose a hidden one.",
    number: "How this number was made", full: "in full", click: "Click an underlined number to go to where it was made.",
    at: { token: (token) => `row ${token}`, head: (i) => `head ${i}` },
    linear: "Each component of the row before, times a learnt weight, summed; here the largest products.",
    gelu: "A weighted sum of the row before, and of it as much as Φ says: the share of a normal distribution below z.",
    logitsSaid: (piece) => `Each component of the row before, times that of the embedding of ${piece}, summed; here the largest products.`,
    scoresSaid: "The products of query and key, component by component, summed and divided by √d_k; here the largest.",
    mixSaid: "The values of all tokens, each times the weight that this token gives to it.", normSaid: "The number before, moved and scaled.",
    rotationSaid: (i, second) => `A pair of components, turned by position ${i} × ω: this is the ${second ? "second" : "first"} of the two.`,
    softmaxSaid: (n) => `exp of the distance to the largest, divided by the sum of all ${n} such numbers.`, sumSaid: "What was in the stream, and what the sublayer adds.",
    lookupSaid: (id, j) => `Row ${id} of E, column ${j}: a number that was learnt.`, tokenSaid: (piece, id) => `${piece} is number ${id} of the vocabulary.`,
    maskedSaid: (piece, id) => `${piece} is hidden: the model gets [MASK], number ${id} of the vocabulary.`, lossSaid: (piece) => `The probability of ${piece}, the true token, as a loss.`,
    others: (n) => `the other ${n}`, bias: "bias b", all: "sum", average: "mean", deviation: "√(variance + ε)", gain: "gain", exp: "exp", maximum: "largest", total: (n) => `sum of ${n}`, root: "√d_k",
    steps: {
      tokens: ["ids", "text into tokens", "The text is cut into pieces that the model knows, its tokens, and each has a number, its id. [CLS] stands before them and [SEP] after; in place of a hidden token the model gets [MASK]. It sees nothing but these ids."],
      embedding: ["x", "embeddings", "Each id picks its row of the table E: the vector learnt for this token, the same wherever it stands. Here the residual stream begins, which every sublayer reads and adds to."],
      attention_norm: ["LN", "layer norm before attention", "Each vector is brought to mean 0 and variance 1, and each component then scaled by a gain and shifted by a bias, both learnt. So the attention reads all vectors on one scale, however long they have grown."],
      qkv: ["q k v", "queries, keys, values", "Three learnt projections of each vector, cut into heads: the query is what a token looks for, the key what it is found by, the value what it hands over."],
      rotate: ["rotate", "rotary positions", "Pairs of components of each query and key are turned, by an angle that grows with the position. The product of a query and a key then depends on the distance between the two tokens: nothing else tells the model their order."],
      scores: ["scores", "scores", "In each head every query is multiplied with every key: how well do they fit? Divided by √d_k, the scores stay in the range in which a softmax does not choose one key alone."],
      weights: ["weights", "attention weights", "The softmax makes every score of a row positive and their sum 1: how much this token, the row, reads of each token, the columns."],
      heads: ["heads", "weighted values", "In each head a token takes the mean of all values by its weights. Here, and nowhere else, something passes from one token to another."],
      project: ["W_o", "output projection", "One matrix mixes what the heads have found into a vector as wide as the stream."],
      attention_sum: ["+", "sum of stream and attention", "What the attention found is added to the stream; what was in it before is still there."],
      feed_forward_norm: ["LN", "layer norm before feed-forward", "As before the attention, with a gain and a bias of its own."],
      hidden: ["hidden", "hidden layer", "From here each token is by itself again. Each hidden unit compares the vector with a direction that it has learnt; GELU lets pass what fits, and next to nothing of the rest."],
      contract: ["W_2", "second projection", "Each hidden unit adds a direction of its own, as strongly as it was woken: together a vector as wide as the stream."],
      feed_forward_sum: ["+", "sum of stream and feed-forward", "This is added to the stream too, and the block is done: the result is what comes next."],
      norm: ["LN", "last layer norm", "After the last block the stream is normalised once more."],
      transform: ["W", "transform", "One more layer with GELU, which only the prediction needs: it turns what is known at a token into what is looked for there."],
      head_norm: ["LN", "layer norm of the head", "Normalised, so that the products to come are on one scale."],
      logits: ["logits", "logits", "The vector is multiplied with the embedding of every token of the vocabulary, the rows of the very E of the beginning, and a bias is added. The larger the number, the better this token fits here."],
      probabilities: ["p", "probabilities", "The softmax over the whole vocabulary makes probabilities of the logits: what the model holds for possible at this token."],
      loss: ["loss", "loss", "−ln p of the true token, at hidden tokens only: 0 if the model is sure of it, {lnV} if it takes all of the vocabulary to be equally likely. Training moves every weight so that the mean loss falls."],
    },
  },
  zh: {
    name: "一句话穿过模型的旅程", sentence: "句子", examples: "例句", own: "自己输入的", reset: "复位", tokens: "词元", stages: "模型的各站",
    cut: (n) => `只读前 ${n} 个词元，以便看清每一行。`,
    pick: "点击一个词元，跟随它。", hide: (token) => `遮住${token}`, show: (token) => `显示${token}`, special: "特殊词元不能遮住。",
    followed: (token, true_) => `正在跟随：${token}${true_ ? `，原词是${true_}` : ""}`, quote: (token) => `“${token}”`,
    attention: "注意力：词元互相读取", feed_forward: "前馈网络：词元各自独立", stream: "残差流",
    legend: (d, ff, V) => `每幅小图画的都是真实的数：每个词元一行，蓝色为正，橙色为负。宽度与列数成正比（残差流 ${d} 列，隐藏层 ${ff} 列）；只有词表的 ${V} 列画窄了。点击一站，或用方向键逐站走过。`,
    back: "上一站", on: "下一站", of: (i, n, title) => `第 ${i} 站，共 ${n} 站：${title}。`, inBlock: (title, i) => `第 ${i} 块的${title}`,
    heads: "注意力头", nth: (i) => `头 ${i}`, deepest: (x) => `最深的颜色：±${x} 及以上`, row: (token) => `${token}这一行`, range: (n, low, high) => `${n} 个数，从 ${low} 到 ${high}`,
    column: { scores: "键", weights: "键", logits: "词元编号", probabilities: "词元编号", hidden: "隐藏单元", other: "分量" }, map: (name) => `${name}：行是词元，列是分量`, bars: (token) => `${token}这一行的各个数，画成条形`,
    likeliest: (token) => `${token}处最可能的词元`, greatest: (token) => `${token}处最大的 logit`, rank: (r) => `第 ${r} 名`, truth: "原词", more: (n) => `另有 ${n} 个遮住的词元未列出：选中其中一个，即可看到它的列表。`,
    none: "没有遮住任何词元：遮住一个，才有损失。", mean: (n) => `${n} 个词元的平均`, notHidden: "这个词元没有遮住，不计入损失。请选一个遮住的词元。",
    number: "这个数是怎样算出来的", full: "完整数值", click: "点击带下划线的数，可以回到算出它的地方。",
    at: { token: (token) => `${token}这一行`, head: (i) => `头 ${i}` },
    linear: "上一站这一行的各个分量，各乘以一个学到的权重，再求和；下面列出最大的几个乘积。",
    gelu: "先对上一站的这一行加权求和，得到 z，再乘以 Φ(z)：标准正态分布取值小于 z 的概率。",
    logitsSaid: (piece) => `上一站这一行的各个分量，各乘以${piece}的嵌入的相应分量，再求和；下面列出最大的几个乘积。`,
    scoresSaid: "查询与键逐分量相乘，求和，再除以 √d_k；下面列出最大的几个乘积。",
    mixSaid: "所有词元的值，各乘以这个词元给它的权重。", normSaid: "把上一站的这个数先平移，再缩放。",
    rotationSaid: (i, second) => `一对分量一起旋转，角度为位置 ${i} × ω：这是其中的第${second ? "二" : "一"}个分量。`,
    softmaxSaid: (n) => `减去最大值，取 exp，再除以全部 ${n} 个这样的数之和。`, sumSaid: "残差流里原有的数，加上子层算出的数。",
    lookupSaid: (id, j) => `E 的第 ${id} 行第 ${j} 列：一个学到的数。`, tokenSaid: (piece, id) => `${piece}在词表中的编号是 ${id}。`,
    maskedSaid: (piece, id) => `${piece}已遮住：模型得到的是 [MASK]，编号是 ${id}。`, lossSaid: (piece) => `由原词${piece}的概率得到的损失。`,
    others: (n) => `其余 ${n} 个`, bias: "偏置 b", all: "和", average: "均值", deviation: "√(方差 + ε)", gain: "增益", exp: "exp", maximum: "最大值", total: (n) => `${n} 个之和`, root: "√d_k",
    steps: {
      tokens: ["编号", "词元", "把文本切成模型认识的小块，即词元，每个词元有一个编号。最前面加上 [CLS]，最后面加上 [SEP]；遮住的词元换成 [MASK]。模型看到的只有这些编号。"],
      embedding: ["x", "嵌入", "按编号从表 E 中取出一行，就是为这个词元学到的向量，不论它出现在句中何处都一样。残差流从这里开始，此后每个子层都读取它，并把结果加到它上面。"],
      attention_norm: ["LN", "层归一化（注意力之前）", "把每个向量变为均值 0、方差 1，再逐分量乘以学到的增益、加上学到的偏置。这样，不论残差流中的向量变得多长，注意力读到的都在同一尺度上。"],
      qkv: ["q k v", "查询、键、值", "对每个向量作三个学到的投影，再切分到各个头：查询表示一个词元要找什么，键表示其他词元凭什么找到它，值是它交出的内容。"],
      rotate: ["旋转", "旋转位置编码", "每个查询和键的分量两两成对，转过一个随位置增大的角度。于是查询与键的点积取决于两个词元的距离：模型只从这里得知词序。"],
      scores: ["得分", "得分", "在每个头里，每个查询与每个键作点积：它们有多匹配？除以 √d_k，得分就不至于大到让 softmax 只选中一个键。"],
      weights: ["权重", "注意力权重", "softmax 把一行得分变成和为 1 的正数：这一行的词元从各列的词元读取多少。"],
      heads: ["各头", "值的加权和", "在每个头里，每个词元按自己的权重对所有的值加权求和。信息就在这里、也只在这里，从一个词元传到另一个词元。"],
      project: ["W_o", "输出投影", "用一个矩阵把各个头的结果混合成与残差流同宽的向量。"],
      attention_sum: ["+", "残差之和（注意力）", "把注意力的结果加到残差流上；原来的内容仍在其中。"],
      feed_forward_norm: ["LN", "层归一化（前馈网络之前）", "与注意力之前的一样，但有自己的增益和偏置。"],
      hidden: ["隐层", "隐藏层", "从这里起，每个词元又各自独立。每个隐藏单元把向量与自己学到的一个方向相比较；GELU 让相符的通过，其余的几乎都挡掉。"],
      contract: ["W_2", "第二个投影", "每个隐藏单元各有一个方向，按激活的强弱相加，合成与残差流同宽的向量。"],
      feed_forward_sum: ["+", "残差之和（前馈网络）", "把这个结果也加到残差流上，这一块就完成了；得到的和交给下一步。"],
      norm: ["LN", "最后的层归一化", "最后一块之后，残差流再归一化一次。"],
      transform: ["W", "变换", "再经过一个带 GELU 的层，它只用于预测：把这一处已知的信息，变成这里要找的词的特征。"],
      head_norm: ["LN", "输出层的层归一化", "归一化之后，接下来的点积就在同一尺度上。"],
      logits: ["logits", "logits", "向量与词表中每个词元的嵌入作点积，用的就是开头那张表 E 的各行，再加上偏置。这个数越大，相应的词元放在这里就越合适。"],
      probabilities: ["p", "概率", "对整个词表作 softmax，logits 就变成概率：模型认为这里各有多大可能是哪个词元。"],
      loss: ["损失", "损失", "原词的 −ln p，只在遮住的词元处计算：模型对原词有十足把握时为 0，认为词表中所有词元可能性相同时为 {lnV}。训练调整所有权重，使平均损失下降。"],
    },
  },
};
const EXAMPLES = { // sentences, and the numbers of the tokens that are hidden
  "mlm-en": [["Would you like a cup of coffee or tea?", [7]], ["The train leaves at eight o'clock in the morning.", [2, 11]], ["My brother speaks French better than I do.", [4]],
    ["The girl lost her keys and could not open the door.", [12]], ["I have never read such an interesting book.", [8]], ["He put on his coat because it was cold outside.", [5, 9]]],
  "mlm-zh": [["你想喝咖啡还是喝茶？", [9]], ["我弟弟的法语说得比我好。", [5]], ["他昨天晚上没有睡好，所以今天早上起得很晚。", [2, 15]],
    ["她用钥匙打开了门。", [8]], ["孩子们正在公园里玩。", [6]], ["天气太冷了，他穿上了大衣。", [8, 12]]],
};
const TRAITS = ["model", "text", "masked", "stage", "token", "head", "component"];
const LONGEST = 10_000; // characters of a text, and
const MOST = 24; // tokens that are read, as in journey.py
const LISTED = 12; // likeliest tokens that are shown
const LISTS = 3; // hidden tokens whose lists are shown
const OVER_VOCABULARY = ["logits", "probabilities"];
const EQUATIONS = { rotate: "q′ = R(m · ω) q, k′ = R(m · ω) k" }; // in place of what forward.js says in English
const KEYED = ["scores", "weights"]; // stages whose columns are tokens

function render({ model, el }) {
  const root = frame("llm-journey", "");
  let name, lang, loaded, close = () => {};
  const update = () => {
    const [wanted, spoken] = [model.get("model"), language(model)];
    if (wanted === name && spoken === lang) return;
    if (wanted !== name) loaded = undefined; // another language finds the model that is there
    [name, lang] = [wanted, spoken];
    close();
    root.replaceChildren();
    root.setAttribute("aria-label", TEXT[lang].name);
    const build = (what) => {
      loaded = what;
      return travel({ model, root, text: TEXT[lang], ...what });
    };
    close = loaded ? build(loaded) : gate({ model, root, lang, name, build });
  };
  model.on("change", update);
  update();
  el.append(root);
  return () => {
    model.off("change", update);
    close();
    root.remove();
  };
}

/** The tokens that are read of a text: what the model is given, what is true, and how each is shown. */
function readText(tokens, words, masked) {
  const { "[CLS]": first, "[SEP]": last, "[MASK]": mask } = tokens.special, own = tokens.encode(words).map(({ id }) => id);
  const ids = [first, ...own.slice(0, MOST - 2), last], ordinary = ids.map((id) => !Object.values(tokens.special).includes(id));
  const hidden = masked.filter((i) => ordinary[i]);
  const seen = ids.map((id, i) => (hidden.includes(i) ? mask : id)), labels = seen.map(tokens.label);
  return { ids: seen, truths: Object.fromEntries(hidden.map((i) => [i, ids[i]])), ordinary, cut: own.length > MOST - 2, labels, trueLabels: ids.map(tokens.label),
    asked: seen.flatMap((id, i) => (id === mask ? [i] : [])) };
}

/** The figure behind the gate. Gives its cleanup function. */
function travel({ model, root, text, net, tokens }) {
  const { state, set } = store(model, TRAITS), first = state().model;
  let read, all, computed;
  /** Where the reader is: a shorter text has not that token, and another stage not that column. */
  const where = () => {
    const wanted = state(), stage = all.byKey[wanted.stage] ?? all.stages[0];
    return { ...wanted, stage: stage.key, token: Math.min(wanted.token, all.ids.length - 1), component: Math.min(wanted.component, stage.parts[0][0].length - 1) };
  };
  const go = (place) => {
    const now = where(), changes = Object.entries(place).filter(([name, value]) => value !== undefined && value !== now[name]);
    if (changes.length) set(Object.fromEntries(changes));
  };
  /** Walk to a stage; the column stays, but a number of the vocabulary is none of a component, and the other way round. */
  const walk = (key) => {
    const now = where(), [from, to] = [now.stage, key].map((name) => OVER_VOCABULARY.includes(all.byKey[name].step));
    const row = all.byKey["head.logits"].parts[0][now.token], best = read.truths[now.token] ?? row.indexOf(Math.max(...row));
    go({ stage: key, component: to && !from ? best : from && !to ? 0 : undefined });
  };
  const step = (by) => {
    const next = all.stages[all.stages.findIndex(({ key }) => key === where().stage) + by];
    if (next) walk(next.key);
  };
  const context = { text, tokens, net, set, go, walk, step, state };
  const inputs = sentenceInputs(context), overview = flow(context);
  const parts = [chips(context), overview, walker(context), stageView(context), numberView(context)];
  root.append(inputs.node, ...parts.map(({ node }) => node));
  const draw = () => {
    const wanted = state(), key = JSON.stringify([wanted.text, wanted.masked]);
    if (key !== computed) { // other tokens
      read = readText(tokens, wanted.text, wanted.masked);
      all = { ...journey(net, read.ids, read.truths), ...read };
      computed = key;
    }
    const now = where();
    inputs.draw(all);
    parts.forEach((part) => part.draw(all, now));
    root.removeAttribute("aria-busy");
  };
  const due = soon(draw);
  const update = () => {
    if (state().model !== first) return; // another door is on its way
    root.setAttribute("aria-busy", "true");
    due.call();
  };
  model.on("change", update);
  draw();
  return () => {
    model.off("change", update);
    due.cancel();
    overview.close();
    root.removeAttribute("aria-busy");
  };
}

/** Where the reader writes: the sentence, examples, and back to the first. */
function sentenceInputs({ text, tokens, set, state }) {
  const examples = EXAMPLES[state().model] ?? [], first = state();
  const write = (words) => {
    const { ordinary } = readText(tokens, words, []);
    set({ text: words, masked: state().masked.filter((i) => ordinary[i]) });
  };
  const field = editor({ label: text.sentence, longest: LONGEST, rows: 2, get: () => state().text, set: write });
  const chosen = select({ label: text.examples, options: [["", text.own], ...examples.map(([words], i) => [String(i), words])],
    get: () => String(Math.max(-1, examples.findIndex(([words]) => words === state().text))).replace("-1", ""),
    set: (i) => { if (i !== "") set({ text: examples[i][0], masked: examples[i][1], token: examples[i][1][0] }); } });
  const reset = button(text.reset, () => set(first)), cut = h("p", { class: "llm-note" });
  const draw = (all) => {
    field.update();
    chosen.update();
    cut.textContent = all.cut ? text.cut(MOST) : "";
    cut.hidden = !all.cut;
  };
  return { node: h("div", {}, field.node, h("div", { class: "llm-row llm-under" }, chosen.node, reset), cut), draw };
}

/** The tokens in a row; a click follows one. */
function chips({ text, go, set, state }) {
  const row = h("div", { class: "llm-chips", role: "group", "aria-label": text.tokens }), words = h("span", {});
  let now, all, drawn, nodes = [], stop;
  const hide = button("", () => {
    const { masked } = state(), i = now.token;
    if (all.ordinary[i]) set({ masked: masked.includes(i) ? masked.filter((k) => k !== i) : [...masked, i].sort((a, b) => a - b) });
  });
  const rebuild = () => {
    nodes = all.labels.map((label, i) => h("button", { type: "button", class: "llm-chip", onclick: () => go({ token: i }) },
      h("bdi", {}, label), ...(i in all.truths ? [h("bdi", { class: "llm-true" }, all.trueLabels[i])] : [])));
    nodes.forEach((node, i) => node.classList.toggle("llm-hidden", all.asked.includes(i)));
    row.replaceChildren(...nodes);
    stop = roving(row, [nodes], (_, i) => go({ token: i }));
  };
  const draw = (journeyed, place) => {
    [all, now] = [journeyed, place];
    const had = nodes.includes(row.getRootNode().activeElement);
    if (all !== drawn) rebuild();
    drawn = all;
    nodes.forEach((node, i) => node.setAttribute("aria-pressed", i === now.token));
    stop(0, now.token);
    if (had) nodes[now.token].focus({ preventScroll: true });
    const hidden = now.token in all.truths, name = text.quote(all.trueLabels[now.token]);
    words.textContent = all.ordinary[now.token] ? text.followed(text.quote(all.labels[now.token]), hidden ? name : "") : text.special;
    hide.textContent = hidden ? text.show(name) : text.hide(name);
    hide.setAttribute("aria-disabled", !all.ordinary[now.token]);
  };
  return { node: h("div", {}, h("p", { class: "llm-help" }, text.pick), row, h("div", { class: "llm-row llm-under" }, words, hide)), draw };
}

/** The way on and back, and what happens at the stage where one is. */
function walker({ text, step, net }) {
  const title = h("b", {}), words = h("p", {}), equation = h("span", { class: "llm-equation" }), shape = h("span", { class: "llm-shape" });
  const back = button("\u2190", () => step(-1), { "aria-label": text.back }), on = button("\u2192", () => step(1), { "aria-label": text.on });
  const turn = ({ key }) => { const by = { ArrowLeft: -1, ArrowRight: 1 }[key]; if (by) step(by); };
  const said = h("div", { "aria-live": "polite" }, title, words);
  const node = h("div", { class: "llm-walk" }, h("div", { class: "llm-ways", onkeydown: turn }, back, on), said, h("p", { class: "llm-formula" }, equation, shape));
  const draw = (all, now) => {
    const i = all.stages.findIndex(({ key }) => key === now.stage), stage = all.stages[i], [, , sentence] = text.steps[stage.step];
    const heading = text.of(i + 1, all.stages.length, titleOf(text, stage)), said = sentence.replace("{lnV}", format(Math.log(net.config.vocab_size), 2));
    if (title.textContent !== heading) title.textContent = heading; // what is as it was is not said again
    if (words.textContent !== said) words.textContent = said;
    equation.textContent = EQUATIONS[stage.step] ?? stage.equation;
    shape.textContent = shapeOf(stage.step, all.ids.length, net.config);
    back.setAttribute("aria-disabled", i === 0);
    on.setAttribute("aria-disabled", i === all.stages.length - 1);
  };
  return { node, draw };
}

/** The title of a stage, with its block. */
const titleOf = (text, { key, step }) => (Number(key.split(".")[0]) ? text.inBlock(text.steps[step][1], key.split(".")[0]) : text.steps[step][1]);

/** The shapes of what a step takes and makes. */
function shapeOf(step, T, { d_model: d, d_ff: f, n_heads: n, vocab_size: V }) {
  const k = d / n, linear = (a, b) => `(${T}, ${a}) × (${a}, ${b}) → (${T}, ${b})`, each = (shapes) => `${n} × [${shapes}]`, same = `(${T}, ${d}) → (${T}, ${d})`;
  return { tokens: `(${T})`, embedding: `(${T}), (${V}, ${d}) → (${T}, ${d})`, qkv: linear(d, 3 * d), rotate: each(`2 × (${T}, ${k}) → 2 × (${T}, ${k})`),
    scores: each(`(${T}, ${k}) × (${k}, ${T}) → (${T}, ${T})`), weights: each(`(${T}, ${T}) → (${T}, ${T})`), heads: each(`(${T}, ${T}) × (${T}, ${k}) → (${T}, ${k})`),
    project: linear(d, d), attention_sum: `(${T}, ${d}) + ${same}`, feed_forward_sum: `(${T}, ${d}) + ${same}`, hidden: linear(d, f), contract: linear(f, d), transform: linear(d, d),
    logits: linear(d, V), probabilities: `(${T}, ${V}) → (${T}, ${V})`, loss: `(${T}, ${V}) → (${T})` }[step] ?? same;
}

/** The stage in large: its matrix and the followed token's row of it, or lists of tokens. */
function stageView({ text, tokens, net, go, walk }) {
  const node = h("div", { class: "llm-stage" });
  const views = { matrix: matrixView(text, net, go), lists: listsView(text, tokens, go), ids: idsView(text, go), loss: lossView(text, go, walk) };
  const kind = { tokens: "ids", loss: "loss", logits: "lists", probabilities: "lists" };
  let shown;
  const draw = (all, now) => {
    const stage = all.byKey[now.stage], view = views[kind[stage.step] ?? "matrix"];
    if (view !== shown) node.replaceChildren(view.node);
    shown = view;
    view.draw(all, now, stage);
  };
  return { node, draw };
}

/** The heads to choose from, the matrix as a map, and the followed row as bars. */
function matrixView(text, net, go) {
  const heads = headChoice(text, net.config.n_heads, go), title = h("b", {}), range = h("span", { class: "llm-shape" }), bars = barsOf((component) => go({ component }));
  const map = matrixMap({ text, go, below: h("div", { class: "llm-followed" }, h("div", { class: "llm-row" }, title, range), bars.node) });
  const node = h("div", {}, heads.node, map.node);
  const draw = (all, now, stage) => {
    const several = stage.parts.length > 1, m = stage.parts[several ? now.head : 0], row = m[now.token];
    heads.node.hidden = !several;
    if (several) heads.draw(stage, now);
    const width = net.config.d_model / net.config.n_heads, bands = several && !KEYED.includes(stage.step) ? stage.names : [];
    map.draw({ m, labels: all.labels, keys: KEYED.includes(stage.step) ? all.labels : [], bands, width, name: [...new Set(stage.names), ...(several ? [text.nth(now.head)] : [])].join(", "), ...now });
    title.textContent = text.row(text.quote(all.labels[now.token]));
    range.textContent = text.range(row.length, format(Math.min(...row)), format(Math.max(...row)));
    bars.draw({ row, component: now.component, label: text.bars(text.quote(all.labels[now.token])) });
  };
  return { node, draw };
}

/** One picture a head. */
function headChoice(text, n, go) {
  const pictures = Array.from({ length: n }, () => shadedMatrix(6));
  const buttons = pictures.map((picture, i) => h("button", { type: "button", class: "llm-headof", onclick: () => go({ head: i }) }, h("span", {}, text.nth(i)), picture.node));
  const node = h("div", { class: "llm-choices", role: "group", "aria-label": text.heads }, ...buttons);
  const stop = roving(node, [buttons], (_, i) => go({ head: i }));
  const draw = ({ parts }, now) => {
    const top = Math.max(...parts.map(largestShown));
    pictures.forEach((picture, i) => picture.draw(parts[i], top));
    buttons.forEach((button, i) => button.setAttribute("aria-pressed", i === now.head));
    stop(0, now.head);
  };
  return { node, draw };
}

/** The tokens of the text beside their ids. */
function idsView(text, go) {
  const node = h("div", { class: "llm-ids" });
  const draw = (all, now) => {
    const had = node.contains(node.getRootNode().activeElement);
    node.replaceChildren(...all.labels.map((label, i) => h("button", { type: "button", class: "llm-chip", "aria-pressed": i === now.token, onclick: () => go({ token: i }) },
      h("bdi", {}, label), h("span", { class: "llm-number" }, String(all.ids[i])))));
    const stop = roving(node, [[...node.children]], (_, i) => go({ token: i }));
    stop(0, now.token);
    if (had) node.children[now.token].focus({ preventScroll: true });
  };
  return { node, draw };
}

/** A line with a bar: who, how much, and what a click does. */
function barLine(label, x, share, { note = "", pressed, onclick }) {
  const value = number(3);
  value.show(x);
  const bar = h("span", { class: "llm-bar", "aria-hidden": "true" });
  bar.style.setProperty("--share", `${(100 * share).toFixed(2)}%`);
  return h("button", { type: "button", class: "llm-line", "aria-pressed": pressed, onclick }, h("span", {}, h("bdi", {}, label), h("small", {}, note)), bar, value.node);
}

/** The likeliest tokens at the hidden tokens, and at the one that is followed. */
function listsView(text, tokens, go) {
  const lists = h("div", { class: "llm-lists" }), more = h("p", { class: "llm-note" });
  const listOf = (all, now, stage, i) => {
    const row = stage.parts[0][i], order = Array.from(row.keys()).sort((a, b) => row[b] - row[a] || a - b), truth = all.truths[i];
    const shown = order.slice(0, LISTED), low = row[order.at(-1)], span = row[order[0]] - low;
    [truth, i === now.token ? now.component : undefined].forEach((id) => { if (id !== undefined && !shown.includes(id)) shown.push(id); });
    const note = (id) => [id === truth ? text.truth : "", order.indexOf(id) >= LISTED ? text.rank(order.indexOf(id) + 1) : ""].filter(Boolean).join(", ");
    const share = (x) => (stage.step === "logits" ? (x - low) / span : x / row[order[0]]);
    const title = text[stage.step === "logits" ? "greatest" : "likeliest"](text.quote(all.labels[i]) + (i in all.truths ? ` (${all.trueLabels[i]})` : ""));
    return h("section", {}, h("h4", {}, title), ...shown.map((id) => barLine(tokens.label(id), row[id], share(row[id]),
      { note: note(id), pressed: i === now.token && id === now.component, onclick: () => go({ token: i, component: id }) })));
  };
  const draw = (all, now, stage) => {
    const wanted = [now.token, ...all.asked.filter((i) => i !== now.token)], shown = wanted.slice(0, LISTS);
    const nodes = () => [...lists.querySelectorAll("button")], had = nodes().indexOf(lists.getRootNode().activeElement);
    lists.replaceChildren(...shown.map((i) => listOf(all, now, stage, i)));
    if (had >= 0) (nodes().find((one) => one.getAttribute("aria-pressed") === "true") ?? nodes()[0]).focus({ preventScroll: true });
    more.textContent = wanted.length > LISTS ? text.more(wanted.length - LISTS) : "";
    more.hidden = wanted.length <= LISTS;
  };
  return { node: h("div", {}, lists, more), draw };
}

/** The losses of the hidden tokens, and their mean. */
function lossView(text, go) {
  const node = h("div", { class: "llm-lists" });
  const draw = (all, now, stage) => {
    const at = Object.keys(all.truths).map(Number), losses = at.map((i) => stage.parts[0][i][0]), top = Math.max(...losses);
    const had = node.contains(node.getRootNode().activeElement), mean = number(3);
    mean.show(losses.reduce((sum, x) => sum + x, 0) / losses.length);
    node.replaceChildren(at.length ? h("section", {}, ...at.map((i, k) => barLine(`${i} ${all.trueLabels[i]}`, losses[k], losses[k] / top, { pressed: i === now.token, onclick: () => go({ token: i }) })),
      h("p", { class: "llm-row llm-mean" }, h("b", {}, text.mean(at.length)), mean.node)) : h("p", {}, text.none));
    if (had) node.querySelector("[aria-pressed=true]")?.focus({ preventScroll: true });
  };
  return { node, draw };
}

/** The chosen number in full, and how it was made of earlier ones, which can be gone to. */
function numberView({ text, tokens, net, go }) {
  const field = h("input", { type: "number", min: 0, step: 1 }), name = h("span", {}), meaning = h("bdi", { class: "llm-meaning" });
  const value = number(4, "llm-value", short), full = h("small", { class: "llm-shape" }), said = h("p", {}), lines = h("div", { class: "llm-ledger" }), help = h("p", { class: "llm-note" }, text.click), where = h("span", { class: "llm-where" });
  const column = h("label", { class: "llm-column" }, name, field, meaning);
  field.addEventListener("input", () => {
    const j = Number(field.value);
    if (field.value !== "" && Number.isInteger(j) && j >= 0 && j <= Number(field.max)) go({ component: j });
  });
  const node = h("section", { class: "llm-how" }, h("h4", {}, text.number), h("div", { class: "llm-row" }, where, column), h("p", { class: "llm-sum" }, value.node, full), said, lines, help);
  const draw = (all, now) => {
    const stage = all.byKey[now.stage], columns = stage.parts[0][0].length, { token, head, component } = now;
    const e = explain(all, { stage: now.stage, token, head, component }), row = text.quote(all.labels[token]);
    where.textContent = [titleOf(text, stage), ...(stage.parts.length > 1 ? [text.at.head(head)] : []), text.at.token(row)].join(" · ");
    column.hidden = columns === 1;
    name.textContent = text.column[stage.step] ?? text.column.other;
    field.max = columns - 1;
    if (field !== field.getRootNode().activeElement || Number(field.value) !== component) field.value = component;
    meaning.textContent = KEYED.includes(stage.step) ? all.labels[component] : OVER_VOCABULARY.includes(stage.step) ? tokens.label(component) : partOf(stage, component, net);
    value.node.parentNode.hidden = e.kind === "none";
    if (e.kind === "token") value.node.title = value.node.textContent = value.node.value = String(e.id);
    else value.show(e.value);
    full.textContent = e.kind === "token" ? "" : `${text.full}: ${String(e.value).replace("-", "\u2212")}`;
    const told = TELL[e.kind](text, e, { tokens, all, now, stage, go, row });
    said.textContent = told.words;
    lines.replaceChildren(...(told.lines ?? []));
    help.hidden = !lines.querySelector("button");
  };
  return { node, draw };
}

/** Of queries, keys and values side by side, which it is and the component within. */
function partOf({ step, names }, component, { config }) {
  const width = config.d_model / config.n_heads;
  return step === "qkv" || step === "rotate" ? `${names[Math.floor(component / width)]}[${component % width}]` : "";
}

/** A number in a few digits, however small. */
const short = (x, digits = 3) => (x === 0 || Math.abs(x) >= 0.01 ? format(x, digits) : Math.abs(x) >= 0.001 ? format(x, 5) : scientific(x, 2));

/** One line of a calculation: what, the numbers, and what comes out; with a bar for how much it is of `most`. */
function line(label, numbers, result, most) {
  const out = number(3, "", short);
  out.show(result);
  const bar = h("span", { class: `llm-part${result < 0 ? " llm-negative" : ""}`, "aria-hidden": "true" });
  bar.style.setProperty("--share", most ? `${Math.min(100, (100 * Math.abs(result)) / most).toFixed(1)}%` : "0%");
  return h("div", { class: `llm-term${most === undefined ? " llm-result" : ""}` }, h("span", {}, label), h("span", {}, ...numbers), bar, out.node);
}

/** A number of an earlier stage: a click goes there. */
function operandLink({ x, at }, { text, go, all }) {
  const name = `${titleOf(text, all.byKey[at.stage])}, ${text.at.token(text.quote(all.labels[at.token]))}, ${at.component}`;
  return h("button", { type: "button", class: "llm-link", title: name, "aria-label": `${short(x)}: ${name}`, onclick: () => go(at) }, short(x));
}

/** The largest products, the others, and what is added: lines, and their sum. */
function productLines(text, e, labelOf, c) {
  const most = Math.max(...e.terms.map((t) => Math.abs(t.product)), Math.abs(e.rest));
  const link = (o) => operandLink(o, { text, ...c });
  const terms = e.terms.map((t) => line(labelOf(t), [link(t.x), " × ", t.w.at ? link(t.w) : short(t.w)], t.product, most));
  return [...terms, ...(e.others ? [line(text.others(e.others), [], e.rest, most)] : [])];
}

const summed = (e) => e.terms.reduce((sum, { product }) => sum + product, 0) + e.rest;

/** For each kind of explanation its words and its lines. */
const TELL = {
  token: (text, e, { all, now, row }) => ({ words: now.token in all.truths ? text.maskedSaid(text.quote(all.trueLabels[now.token]), e.id) : text.tokenSaid(row, e.id) }),
  none: (text, e, { all }) => ({ words: Object.keys(all.truths).length ? text.notHidden : text.none }),
  lookup: (text, e) => ({ words: text.lookupSaid(e.id, e.column) }),
  linear: (text, e, c) => ({ words: c.stage.step === "logits" ? text.logitsSaid(text.quote(c.tokens.label(c.now.component))) : text.linear, lines: [...productLines(text, e, (t) => `${c.all.byKey[t.x.at.stage].names[0]}[${t.k}]`, c), line(text.bias, [], e.bias, 0), line(text.all, [], e.value)] }),
  gelu(text, e, c) {
    const { lines } = TELL.linear(text, { ...e, value: e.z }, c);
    return { words: text.gelu, lines: [...lines.slice(0, -1), line("z", [], e.z), line("z · Φ(z)", [short(e.z), " × ", short(e.phi)], e.value)] };
  },
  scores: (text, e, c) => ({ words: text.scoresSaid, lines: [...productLines(text, e, (t) => `q′[${t.k}] · k′[${t.k}]`, c), line(text.all, [], summed(e)), line(`/ ${text.root}`, [short(summed(e)), " / ", short(e.root)], e.value)] }),
  mix: (text, e, c) => ({ words: text.mixSaid, lines: [...productLines(text, e, (t) => text.quote(c.all.labels[t.k]), c), line(text.all, [], e.value)] }),
  norm(text, e, c) {
    const deviation = Math.sqrt(e.variance + e.eps), centred = e.x.x - e.mean, unit = centred / deviation;
    return { words: text.normSaid, lines: [line(`x − ${text.average}`, [operandLink(e.x, { text, ...c }), " − ", short(e.mean)], centred, 0), line(`/ ${text.deviation}`, [short(centred), ` / √(${short(e.variance)} + ε)`], unit, 0),
      line(`× ${text.gain}`, [short(unit), " × ", short(e.gain)], unit * e.gain, 0), line(`+ ${text.bias}`, [short(unit * e.gain), " + ", short(e.bias)], e.value)] };
  },
  rotation(text, e, c) {
    const [a, b] = e.isSecond ? [["sin", e.sin], ["cos", e.cos]] : [["cos", e.cos], ["−sin", -e.sin]], link = (o) => operandLink(o, { text, ...c });
    const parts = [e.first.x * a[1], e.second.x * b[1]], most = Math.max(...parts.map(Math.abs));
    return { words: text.rotationSaid(e.position, e.isSecond), lines: [line("ω · m", [short(e.frequency), " × ", String(e.position)], e.angle, 0),
      line(`x₁ ${a[0]}`, [link(e.first), " × ", short(a[1])], parts[0], most), line(`x₂ ${b[0]}`, [link(e.second), " × ", short(b[1])], parts[1], most), line(text.all, [], e.value)] };
  },
  softmax(text, e, c) {
    const link = (o) => operandLink(o, { text, ...c });
    return { words: text.softmaxSaid(e.count), lines: [line(`− ${text.maximum}`, [link(e.x), " − ", link(e.max)], e.x.x - e.max.x, 0), line(text.exp, [`exp(${short(e.x.x - e.max.x)})`], e.power, 0),
      line(`/ ${text.total(e.count)}`, [short(e.power), " / ", short(e.sum)], e.value)] };
  },
  sum(text, e, c) {
    const most = Math.max(Math.abs(e.first.x), Math.abs(e.second.x)), link = (o) => operandLink(o, { text, ...c }), [a, b] = c.stage.equation.split(" = ").at(-1).split(" + ");
    return { words: text.sumSaid, lines: [line(a, [link(e.first)], e.first.x, most), line(b, [link(e.second)], e.second.x, most), line(text.all, [], e.value)] };
  },
  loss: (text, e, c) => ({ words: text.lossSaid(text.quote(c.all.trueLabels[c.now.token])), lines: [line("p", [operandLink(e.p, { text, ...c })], e.p.x, 0), line("−ln p", [`−ln ${short(e.p.x)}`], e.value)] }),
};

export default { render };
