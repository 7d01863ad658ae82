// Click a column's title to sort by it; once more to turn the order round.
for (const table of document.querySelectorAll("table.sortable")) {
  const titles = [...table.tHead.rows[0].cells], body = table.tBodies[0];
  const number = (text) => (/^-?[\d.]/.test(text) ? parseFloat(text) : NaN);
  titles.forEach((title, column) => {
    const texts = [...body.rows].map((row) => row.cells[column].textContent);
    if (!isNaN(number(texts.find(Boolean) ?? ""))) { // a word among numbers is a status
      title.classList.add("number");
      for (const row of body.rows) row.cells[column].classList.add("number");
    }
    title.tabIndex = 0;
    const sort = () => {
      const up = title.getAttribute("aria-sort") !== "ascending";
      titles.forEach((other) => other.removeAttribute("aria-sort"));
      title.setAttribute("aria-sort", up ? "ascending" : "descending");
      const compare = (a, b) => {
        const [x, y] = [a, b].map((row) => row.cells[column].textContent);
        if (x === "" || y === "") return (x === "") - (y === ""); // empty cells stay last
        const [p, q] = [number(x), number(y)];
        return (up ? 1 : -1) * (isNaN(p) || isNaN(q) ? x.localeCompare(y) : p - q);
      };
      body.append(...[...body.rows].sort(compare));
    };
    title.addEventListener("click", sort);
    title.addEventListener("keydown", (event) => { if (event.key === "Enter") sort(); });
  });
}
