"use strict";
// Keys move between steps or rows; what is open and where is in the address, so that a link leads to the same place.
const items = [...document.querySelectorAll(".item")];
let here = -1;

function go(place, record) {
  if (place < 0 || place >= items.length) return;
  items[here]?.classList.remove("here");
  here = place;
  const item = items[here];
  item.classList.add("here");
  item.scrollIntoView({ block: item.offsetHeight > innerHeight / 2 ? "start" : "nearest" });
  if (record && item.id) history.replaceState(null, "", `#${item.id}`);
}

function follow(selector) {
  document.querySelector(selector)?.click();
}

function fold(parts) {
  const open = parts.some((part) => !part.open);
  for (const part of parts) part.open = open;
}

function fromAddress() {
  const place = items.findIndex((item) => item.id && `#${item.id}` === location.hash);
  if (place < 0) return;
  for (const part of items[place].querySelectorAll("details")) part.open = true;
  go(place, false);
}

const keys = {
  j: () => go(here + 1, true),
  k: () => go(here - 1, true),
  n: () => follow("a.next"),
  p: () => follow("a.previous"),
  u: () => follow("a.up"),
  o: () => here >= 0 && fold([...items[here].querySelectorAll("details")]),
  a: () => fold([...document.querySelectorAll(".step details")]),
  Enter: () => here >= 0 && items[here].querySelector("a")?.click(),
  "?": () => document.getElementById("help").showModal(),
  "/": () => document.getElementById("search")?.focus(),
};

addEventListener("keydown", (event) => {
  if (event.ctrlKey || event.metaKey || event.altKey || event.target.closest("input, select, button, dialog[open]")) return;
  if (!keys[event.key]) return;
  event.preventDefault();
  keys[event.key]();
});
addEventListener("hashchange", fromAddress);
for (const select of document.querySelectorAll(".filters select")) select.addEventListener("change", () => select.form.requestSubmit());
// An address without the filters that are not used says more.
document.querySelector(".filters")?.addEventListener("formdata", (event) => {
  for (const [name, value] of [...event.formData]) if (!value) event.formData.delete(name);
});
fromAddress();
