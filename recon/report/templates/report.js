(() => {
  const { $, zoom, themeSwitch } = page;
  let view = null;
  themeSwitch($("theme"), () => { if (view) view.themed(); });

  for (const button of document.querySelectorAll("button.enlarge")) {
    const figure = button.closest("figure");
    button.addEventListener("click", () => zoom(button.querySelector("img").src, figure.querySelector("figcaption").innerText.replace(/Look through$/, "")));
  }

  // The view graph

  const graph = $("graph");
  if (graph) {
    const edges = [...graph.querySelectorAll(".edge")], nodes = [...graph.querySelectorAll(".photo")], said = $("graph-said");
    let chosen = null;
    const least = () => Number($("least").value);
    function show() {
      const near = new Set([chosen]);
      for (const edge of edges) {
        const [a, b] = [Number(edge.dataset.a), Number(edge.dataset.b)], gone = Number(edge.dataset.inliers) < least();
        edge.classList.toggle("gone", gone);
        const mine = chosen === null || a === chosen || b === chosen;
        edge.classList.toggle("dim", !mine);
        if (mine && !gone && chosen !== null) { near.add(a); near.add(b); }
      }
      for (const photo of nodes) {
        const number = Number(photo.dataset.photo);
        photo.classList.toggle("dim", chosen !== null && !near.has(number));
        photo.classList.toggle("chosen", number === chosen);
      }
      $("least-value").textContent = String(least());
    }
    function choose(photo) {
      const number = Number(photo.dataset.photo);
      chosen = chosen === number ? null : number;
      show();
      const joined = edges.filter((edge) => edge.classList.contains("dropped") === false && [edge.dataset.a, edge.dataset.b].includes(String(chosen)) && Number(edge.dataset.inliers) >= Math.max(1, least()));
      said.textContent = chosen === null ? "" : `${photo.getAttribute("aria-label")}: joined with ${joined.length} photos, ${joined.reduce((sum, edge) => sum + Number(edge.dataset.inliers), 0)} inliers together.`;
    }
    for (const photo of nodes) {
      photo.addEventListener("click", () => choose(photo));
      photo.addEventListener("keydown", (event) => { if (event.key === "Enter" || event.key === " ") { event.preventDefault(); choose(photo); } });
    }
    for (const edge of edges) edge.addEventListener("click", () => { said.textContent = edge.querySelector("title").textContent; });
    $("least").addEventListener("input", show);
    $("graph-all").addEventListener("click", () => { chosen = null; $("least").value = 0; said.textContent = ""; show(); });
    $("graph-controls").hidden = false;
  }

  // The command

  const copy = $("copy");
  if (copy && navigator.clipboard) {
    copy.hidden = false;
    copy.addEventListener("click", () => navigator.clipboard.writeText($("command").textContent).then(() => { copy.textContent = "Copied"; }, () => { getSelection().selectAllChildren($("command")); }));
  }

  // The 3D view

  if ($("scene-data")) {
    const photos = new Map([...document.querySelectorAll("#photos figure[data-photo]")].map((figure) => [Number(figure.dataset.photo), figure.querySelector("img")]));
    sceneView.start(photos).then((started) => {
      view = started;
      for (const button of document.querySelectorAll("button.look")) {
        button.hidden = false;
        button.addEventListener("click", () => { view.look(Number(button.dataset.look)); $("viewer").scrollIntoView({ block: "nearest" }); });
      }
    }).catch((error) => {
      const note = $("stage-note");
      note.hidden = false;
      note.textContent = `The 3D view needs WebGL and a browser of 2023 or later; here it could not start (${error.message}).`;
    });
  }
})();
