// Shows anew the part of a page that changes. Without this the page has a link for it.
for (const part of document.querySelectorAll("[data-live]")) {
  const source = new EventSource(part.dataset.live);
  const first = part.querySelector(".state").className;
  source.onmessage = (event) => {
    part.innerHTML = event.data;
    const state = part.querySelector(".state");
    // A job that is over has other buttons.
    if (part.dataset.live.includes("/jobs/") && state.className !== first) location.reload();
  };
  source.addEventListener("over", () => { source.close(); location.reload(); });
  addEventListener("pagehide", () => source.close());
}
