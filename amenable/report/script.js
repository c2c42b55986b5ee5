"use strict";
(function () {
  var root = document.documentElement;
  var button = document.getElementById("theme");
  function remembered(value) {
    try {
      if (value) localStorage.setItem("amenable-theme", value);
      return localStorage.getItem("amenable-theme");
    } catch (error) {
      return value || null;
    }
  }
  function isDark() {
    if (root.dataset.theme) return root.dataset.theme === "dark";
    return matchMedia("(prefers-color-scheme: dark)").matches;
  }
  function name() {
    button.textContent = isDark() ? "Light" : "Dark";
  }
  var before = remembered();
  if (!root.dataset.theme && (before === "dark" || before === "light")) root.dataset.theme = before;
  button.hidden = false;
  name();
  button.addEventListener("click", function () {
    root.dataset.theme = isDark() ? "light" : "dark";
    remembered(root.dataset.theme);
    name();
  });

  var SIZE = 20;
  document.querySelectorAll(".browser").forEach(function (browser) {
    var cards = Array.from(browser.querySelectorAll(".card"));
    if (!cards.length) return;
    var texts = null;
    var page = 0;
    function part(role) {
      return browser.querySelector('[data-role="' + role + '"]');
    }
    var arm = part("arm"), outcome = part("outcome"), search = part("search");
    var pager = browser.querySelector(".pager");
    function show() {
      var words = search.value.trim().toLowerCase();
      if (words && !texts) texts = cards.map(function (card) { return card.textContent.toLowerCase(); });
      var kept = cards.filter(function (card, index) {
        return (!arm || !arm.value || card.dataset.arm === arm.value) &&
          (!outcome || !outcome.value || card.dataset.outcome === outcome.value) &&
          (!words || texts[index].includes(words));
      });
      var pages = Math.max(1, Math.ceil(kept.length / SIZE));
      page = Math.min(Math.max(page, 0), pages - 1);
      cards.forEach(function (card) { card.hidden = true; });
      kept.slice(page * SIZE, (page + 1) * SIZE).forEach(function (card) { card.hidden = false; });
      part("found").textContent = kept.length + " of " + cards.length;
      part("page").textContent = "page " + (page + 1) + " of " + pages;
      part("back").disabled = page === 0;
      part("next").disabled = page === pages - 1;
      pager.hidden = pages === 1;
    }
    function again() {
      page = 0;
      show();
    }
    [arm, outcome].forEach(function (choice) { if (choice) choice.addEventListener("change", again); });
    search.addEventListener("input", again);
    part("back").addEventListener("click", function () { page -= 1; show(); });
    part("next").addEventListener("click", function () { page += 1; show(); });
    browser.querySelector(".controls").hidden = false;
    show();
  });

  var opened = [];
  addEventListener("beforeprint", function () {
    opened = Array.from(document.querySelectorAll("footer details:not([open])"));
    opened.forEach(function (item) { item.open = true; });
  });
  addEventListener("afterprint", function () { opened.forEach(function (item) { item.open = false; }); });
})();
