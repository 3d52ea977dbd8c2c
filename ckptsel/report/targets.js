"use strict";

// Tabs. Without scripts all panels stand one below the other.
const tabs = [...document.querySelectorAll('[role="tab"]')];
const panelOf = (tab) => document.getElementById(tab.getAttribute("aria-controls"));

function select(tab) {
  tabs.forEach((other) => {
    const isIt = other === tab;
    other.setAttribute("aria-selected", String(isIt));
    other.tabIndex = isIt ? 0 : -1;
    panelOf(other).hidden = !isIt;
  });
  document.dispatchEvent(new Event("shown"));
}

tabs.forEach((tab, place) => {
  tab.addEventListener("click", () => select(tab));
  tab.addEventListener("keydown", (event) => {
    const step = { ArrowRight: 1, ArrowLeft: -1 }[event.key];
    if (!step) return;
    const next = tabs[(place + step + tabs.length) % tabs.length];
    next.focus();
    select(next);
  });
});

// An address that ends in the id of a panel, or of something in one, opens it.
function selectByAddress() {
  const wanted = document.getElementById(decodeURIComponent(location.hash.slice(1)));
  select(tabs.find((tab) => wanted && panelOf(tab).contains(wanted)) || tabs[0]);
  if (wanted && !wanted.matches(".panel")) wanted.scrollIntoView();
}
window.addEventListener("hashchange", selectByAddress);
selectByAddress();
