// What screen readers and the keyboard need, and the theme leaves out.
const search = document.querySelector(".md-search");
if (search) search.ariaLabel = "Search";

const scrollable = () => {
  for (const wrap of document.querySelectorAll(".md-typeset__scrollwrap")) wrap.tabIndex = 0;
};
new MutationObserver(scrollable).observe(document.body, { childList: true, subtree: true });
