/* Runs before the first paint, so that neither theme nor language flashes. A classic script: modules come too late. */
(function () {
  "use strict";
  var root = document.documentElement;
  try {
    var theme = localStorage.getItem("allinone.theme");
    if (theme === "light" || theme === "dark") root.dataset.theme = theme;
    var language = localStorage.getItem("allinone.language") || navigator.language || "en";
    root.lang = /^zh/i.test(language) ? "zh-CN" : "en";
  } catch (error) {
    root.lang = /^zh/i.test(navigator.language || "en") ? "zh-CN" : "en"; /* storage is switched off */
  }
})();
