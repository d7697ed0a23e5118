// Shows anew the part of a page that changes. Without this one loads the page again.
for (const part of document.querySelectorAll("[data-live]")) {
  const source = new EventSource(part.dataset.live);
  let last = "";
  const first = part.querySelector(".state").className;
  source.onmessage = (event) => {
    if (event.data !== last) part.innerHTML = last = event.data;
    const state = part.querySelector(".state");
    // A job that is over has other buttons.
    if (part.dataset.live.includes("/jobs/") && state.className !== first) location.reload();
  };
  source.addEventListener("over", () => { source.close(); location.reload(); });
  source.onerror = () => { if (source.readyState === EventSource.CLOSED) setTimeout(() => location.reload(), 5000); };
  addEventListener("pagehide", () => source.close());
}
