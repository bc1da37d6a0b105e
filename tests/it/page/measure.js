// Measures the page in the frame, and leaves what it found as JSON in the element `measured`.
const frame = document.getElementById("page");
frame.addEventListener("load", () => {
  const doc = frame.contentDocument, win = frame.contentWindow, width = frame.clientWidth;
  const all = (selector, root = doc) => [...root.querySelectorAll(selector)];
  const shown = (element) => element.checkVisibility() && !element.closest("[aria-hidden]") && !element.closest("defs, title");
  const name = (element) => `${element.tagName} ${element.textContent.trim().slice(0, 60)}`;
  const channels = (color) => (color.match(/[\d.]+/g) || [0, 0, 0, 0]).map(Number);
  const light = (color) => {
    const [r, g, b] = channels(color).map((c) => { c /= 255; return c <= 0.03928 ? c / 12.92 : ((c + 0.055) / 1.055) ** 2.4; });
    return 0.2126 * r + 0.7152 * g + 0.0722 * b;
  };
  const behind = (element) => {
    for (let at = element; at; at = at.parentElement) {
      const color = win.getComputedStyle(at).backgroundColor, [, , , alpha = 1] = channels(color);
      if (alpha === 1) return color;
    }
    return "rgb(255, 255, 255)";
  };
  const contrast = (element) => {
    const style = win.getComputedStyle(element);
    const one = light(element.namespaceURI.endsWith("svg") ? style.fill : style.color), other = light(behind(element));
    return (Math.max(one, other) + 0.05) / (Math.min(one, other) + 0.05);
  };
  const texts = all("body *").filter((element) => shown(element)
    && [...element.childNodes].some((child) => child.nodeType === 3 && child.data.trim()));
  const size = (element) => {
    const points = parseFloat(win.getComputedStyle(element).fontSize), svg = element.ownerSVGElement;
    return svg ? points * svg.clientWidth / svg.viewBox.baseVal.width : points;
  };
  const meet = (one, other) => {
    const wide = Math.min(one.right, other.right) - Math.max(one.left, other.left);
    const tall = Math.min(one.bottom, other.bottom) - Math.max(one.top, other.top);
    return wide > 1 && tall > 3;
  };
  const on_each_other = all("svg.chart").flatMap((svg) => {
    const labels = all("text", svg).map((text) => [text, text.getBoundingClientRect()]);
    return labels.flatMap(([one, a], at) => labels.slice(at + 1).filter(([, b]) => meet(a, b))
      .map(([other]) => `${svg.id}: ${one.textContent} / ${other.textContent}`));
  });
  const outside = all("body *").filter((element) => shown(element) && !element.closest("svg.map"))
    .filter((element) => { const box = element.getBoundingClientRect(); return box.right > width + 0.5 || box.left < -0.5; });
  // Which cells of the map each layer covers, by a point near the foot of each cell.
  const map = {}, crosses = [], svg = doc.getElementById("map");
  if (svg) {
    const columns = svg.viewBox.baseVal.width / 10, rows = svg.viewBox.baseVal.height / 10;
    for (const path of all("#none, [id^=layer], #left", svg)) {
      map[path.id] = [];
      for (let cell = 0; cell < columns * rows; cell++) {
        const point = svg.createSVGPoint();
        [point.x, point.y] = [(cell % columns) * 10 + 5, Math.floor(cell / columns) * 10 + 9];
        if (path.isPointInFill(point)) map[path.id].push(cell);
      }
    }
    const marks = doc.getElementById("unreadable")?.getAttribute("d").matchAll(/M(-?[\d.]+) (-?[\d.]+)/g) || [];
    for (const [, x, y] of marks) crosses.push((Number(x) + 1) / 10 + columns * (Number(y) + 1) / 10);
  }
  const centre = (element) => {
    const box = element.getBBox();
    return { x: Math.round(box.x + box.width / 2), y: Math.round(box.y + box.height / 2) };
  };
  const measured = {
    width, dark: win.matchMedia("(prefers-color-scheme: dark)").matches,
    scroll_width: doc.documentElement.scrollWidth,
    scripts: doc.scripts.length, images: all("img, image, iframe, object, link").length,
    loaded: win.performance.getEntriesByType("resource").length,
    texts: texts.length, text: doc.body.innerText,
    outside: outside.map(name),
    faint: texts.filter((element) => contrast(element) < 4.5).map((element) => `${name(element)}: ${contrast(element)}`),
    small: texts.filter((element) => size(element) < 9).map((element) => `${name(element)}: ${size(element)}`),
    on_each_other,
    without_words: all("svg").filter((svg) => !svg.getAttribute("aria-label")).map(name),
    without_size: all("svg").filter((svg) => svg.clientWidth < 100 || svg.clientHeight < 10).map((svg) => svg.id),
    map, crosses, steps: all(".maps svg").length,
    charts: Object.fromEntries(all("svg.chart").map((svg) => [svg.id, svg.getAttribute("aria-label")])),
    dots: all("#sweep .dot").map(centre), rings: all("#sweep .ring").map(centre),
    bars: all(".bars li").map((bar) => ({
      name: bar.querySelector("b").textContent,
      share: bar.querySelector(".bar").getBoundingClientRect().width / bar.querySelector(".bar-track").clientWidth,
    })),
    badges: all(".badge").length,
    latency_marks: all("#latency circle.mark").map((mark) => mark.cx.baseVal.value),
  };
  document.getElementById("measured").textContent = JSON.stringify(measured);
  frame.remove();
});
