// A browser starts no worker for pages that are opened from a disk, and search is one: run it in a hidden frame.
if (location.protocol === "file:") {
  window.Worker = class extends EventTarget {
    constructor(url) {
      super();
      const frame = document.createElement("iframe");
      const tell = (data) => this.dispatchEvent(new MessageEvent("message", { data }));
      this.ready = new Promise((started) => {
        window[(frame.name = `worker-${Math.random()}`)] = { tell, started };
      });
      frame.hidden = true;
      frame.srcdoc =
        `<script>const page = parent[name]; postMessage = (data) => page.tell(data);<\/script>` +
        `<script src="${new URL(url, location)}" onload="page.started(window)"><\/script>`;
      document.body.appendChild(frame);
    }
    postMessage(data) {
      this.ready.then((worker) => worker.dispatchEvent(new MessageEvent("message", { data })));
    }
    terminate() {}
  };
}
