"use strict";
// A table's headings are buttons: the first press puts the largest number on top, or A before Z.
document.documentElement.classList.add("js");
for (const table of document.querySelectorAll("table[data-sortable]")) {
  const body = table.tBodies[0];
  const heads = [...table.tHead.rows[0].cells];
  const rows = [...body.rows];
  const number = (row, column) => {
    const cell = row.cells[column];
    return cell.dataset.sort === undefined ? null : Number(cell.dataset.sort);
  };
  heads.forEach((head, column) => {
    const numeric = rows.some((row) => number(row, column) !== null);
    head.querySelector("button").addEventListener("click", () => {
      const before = head.getAttribute("aria-sort");
      const first = numeric ? "descending" : "ascending";
      const second = numeric ? "ascending" : "descending";
      const now = before === first ? second : before === second ? "none" : first;
      heads.forEach((other) => other.setAttribute("aria-sort", "none"));
      head.setAttribute("aria-sort", now);
      const sign = now === "ascending" ? 1 : -1;
      // From the order that the page came with, so that equals keep it and "none" restores it.
      const sorted = now === "none" ? rows : [...rows].sort((a, b) => {
        if (!numeric) {
          return sign * a.cells[column].textContent.localeCompare(b.cells[column].textContent);
        }
        const [left, right] = [number(a, column), number(b, column)];
        if (left === null || right === null) return (left === null) - (right === null);
        return sign * (left - right);
      });
      body.append(...sorted);
    });
  });
}
