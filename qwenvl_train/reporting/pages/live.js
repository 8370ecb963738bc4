// Follows a run: asks the server of `qwenvl-train watch` for the page again, and takes over what has changed.
(() => {
  const PAUSE_MS = 1000;
  let version = null, answers = null;

  function take(page) {
    for (const old of document.querySelectorAll("[data-live]")) {
      const now = page.querySelector(`[data-live="${old.dataset.live}"]`);
      if (now && now.innerHTML !== (old.received ?? old.innerHTML)) {
        const open = [...old.querySelectorAll("details")].map(details => details.open);
        const focused = old.contains(document.activeElement) && document.activeElement.dataset;
        old.innerHTML = old.received = now.innerHTML;
        old.querySelectorAll("details").forEach((details, index) => details.open = open[index] ?? details.open);
        if (old.dataset.live === "answers") Gallery.update();
        if (focused?.filter) old.querySelector(`[data-filter="${focused.filter}"]`)?.focus();
      }
    }
    document.title = page.title;
    const container = document.querySelector("[data-charts]");
    const charts = page.querySelector("[data-charts]").dataset.charts;
    if (charts !== container.dataset.charts) {
      container.dataset.charts = charts;
      Charts.update(container, JSON.parse(charts));
    }
  }

  async function follow() {
    const badge = () => document.querySelector("header .badge");
    try {
      const headers = version ? {"If-None-Match": version} : {};
      const answer = await fetch(answers ? `/?answers=${answers}` : "/", {headers, cache: "no-store"});
      badge()?.classList.remove("lost");
      if (answer.status === 200) {
        take(new DOMParser().parseFromString(await answer.text(), "text/html"));
        version = answer.headers.get("ETag");
        answers = answer.headers.get("X-Answers");
      }
    } catch {
      badge()?.classList.add("lost");
    }
    setTimeout(follow, PAUSE_MS);
  }

  follow();
})();
