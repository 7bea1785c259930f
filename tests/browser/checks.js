// What a page is asked in the browser; each returns what is wrong.
({
  overflow() {
    return document.documentElement.scrollWidth - document.documentElement.clientWidth;
  },

  // Texts of plots that leave their card, and texts of one plot's axes that lie over each other.
  misplaced() {
    const bad = [];
    for (const figure of document.querySelectorAll("figure")) {
      const card = figure.getBoundingClientRect();
      const title = figure.querySelector("figcaption b").textContent;
      for (const plot of figure.querySelectorAll(".plot")) {
        const texts = [...plot.querySelectorAll("svg text")].map(text => [text, text.getBoundingClientRect()]);
        for (const [text, box] of texts)
          if (box.width && (box.left < card.left || box.right > card.right || box.bottom > card.bottom))
            bad.push(["outside", title, text.textContent]);
        for (const [one, a] of texts) for (const [other, b] of texts)
          if (one !== other && a.width && b.width && a.left < b.right - 1 && b.left < a.right - 1
              && a.top < b.bottom - 3 && b.top < a.bottom - 3)
            bad.push(["over each other", title, one.textContent, other.textContent]);
      }
    }
    return bad;
  },

  // Texts whose contrast with what lies behind them is below 4.5 (WCAG 2.2, 1.4.3).
  pale() {
    const parts = color => color.match(/[\d.]+/g).map(Number);
    const luminance = color => {
      const [r, g, b] = color.map(value => value / 255).map(v => v <= .03928 ? v / 12.92 : ((v + .055) / 1.055) ** 2.4);
      return .2126 * r + .7152 * g + .0722 * b;
    };
    const behind = element => {
      for (; element; element = element.parentElement) {
        const color = parts(getComputedStyle(element).backgroundColor);
        if (color.length === 3 || color[3] > 0) return color.slice(0, 3);
      }
      return [255, 255, 255];
    };
    const texts = "h1, h2, p, a, b, mark, td, th, summary, pre, .tiles span, .legend span, svg text.tick, svg text.label";
    const bad = new Set();
    for (const element of document.querySelectorAll(texts)) {
      if (!element.textContent.trim() || !element.getClientRects().length || element.closest(".hovers")) continue;
      const style = getComputedStyle(element);
      const ink = parts(element instanceof SVGElement ? style.fill : style.color).slice(0, 3);
      const [one, other] = [luminance(ink), luminance(behind(element))];
      const contrast = (Math.max(one, other) + .05) / (Math.min(one, other) + .05);
      if (contrast < 4.5) bad.add(`${element.tagName} ${element.textContent.slice(0, 30)}: ${contrast.toFixed(2)}`);
    }
    return [...bad];
  },

  // Cells that stand on another side than the heading of their column.
  misaligned() {
    return [...document.querySelectorAll("table")].flatMap(table => {
      const head = [...table.querySelectorAll("thead th")].map(cell => getComputedStyle(cell).textAlign);
      return [...table.querySelectorAll("tbody tr")].flatMap(row => [...row.querySelectorAll("td")]
        .filter((cell, n) => head.length && getComputedStyle(cell).textAlign !== head[n]).map(cell => cell.innerText));
    });
  },

  // Tables that are wider than what is in them needs.
  stretched() {
    return [...document.querySelectorAll("table")].filter(table => {
      const before = table.offsetWidth;
      table.style.width = "max-content";
      const needed = table.offsetWidth;
      table.style.width = "";
      return before > needed + 1;
    }).map(table => table.innerText.slice(0, 40));
  },
})
