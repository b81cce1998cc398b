// The 3D view: packed arrays to three.js, turning, layers, looking through a camera.
const sceneView = (() => {
  const { $, node } = page;
  const arrays = { uint8: Uint8Array, uint16: Uint16Array, uint32: Uint32Array };

  async function unpack() {
    const text = atob($("scene-data").textContent.trim());
    const packed = new Uint8Array(text.length);
    for (let i = 0; i < text.length; i += 1) packed[i] = text.charCodeAt(i);
    const stream = new Blob([packed]).stream().pipeThrough(new DecompressionStream("gzip"));
    return new Response(stream).arrayBuffer();
  }

  async function start(photos) {
    const header = JSON.parse($("scene-header").textContent);
    THREE.ColorManagement.enabled = false; // colours go to the screen as the photos have them
    const renderer = new THREE.WebGLRenderer({ antialias: true });
    renderer.outputColorSpace = THREE.LinearSRGBColorSpace;
    renderer.setPixelRatio(Math.min(devicePixelRatio || 1, 2));
    const buffer = await unpack();
    const read = (place) => new arrays[place.type](buffer, place.at, place.count);
    const attribute = (place, size) => new THREE.BufferAttribute(read(place), size, true);

    const scene = new THREE.Scene();
    const camera = new THREE.PerspectiveCamera((header.start || {}).fov || 40, 1, 0.001, 40);
    const light = new THREE.DirectionalLight(0xffffff, 2.2);
    scene.add(camera, new THREE.HemisphereLight(0xffffff, 0x777777, 1.4));
    camera.add(light, light.target);
    light.position.set(-0.4, 0.6, 1);
    light.target.position.set(0, 0, -1);
    const root = new THREE.Group();
    scene.add(root);

    const stage = $("stage"), canvas = renderer.domElement, overlay = $("overlay");
    canvas.tabIndex = 0;
    canvas.setAttribute("aria-label", "3D view. Arrow keys turn, plus and minus zoom.");
    canvas.setAttribute("role", "img");
    stage.prepend(canvas);
    if ($("still")) $("still").hidden = true;

    let waiting = false;
    const render = () => {
      if (waiting) return;
      waiting = true;
      requestAnimationFrame(() => { waiting = false; draw(); });
    };
    function draw() {
      renderer.render(scene, camera);
      stage.dataset.frames = String(Number(stage.dataset.frames || 0) + 1);
    }
    const style = (name) => getComputedStyle(document.documentElement).getPropertyValue(name).trim();

    // Layers

    const layers = new Map();
    function cloud(part) {
      const geometry = new THREE.BufferGeometry();
      geometry.setAttribute("position", attribute(part.xyz, 3));
      geometry.setAttribute("color", attribute(part.rgb, 3));
      return new THREE.Points(geometry, new THREE.PointsMaterial({ size: 2, sizeAttenuation: false, vertexColors: true }));
    }
    async function surface(part) {
      const geometry = new THREE.BufferGeometry();
      geometry.setAttribute("position", attribute(part.xyz, 3));
      geometry.setIndex(new THREE.BufferAttribute(read(part.index), 1));
      let material;
      if (part.uv) {
        geometry.setAttribute("uv", attribute(part.uv, 2));
        const bitmap = await createImageBitmap(new Blob([read(part.texture)], { type: "image/jpeg" }));
        const texture = new THREE.Texture(bitmap);
        texture.flipY = false;
        texture.generateMipmaps = true;
        texture.anisotropy = Math.min(8, renderer.capabilities.getMaxAnisotropy());
        texture.needsUpdate = true;
        material = new THREE.MeshBasicMaterial({ map: texture, side: THREE.DoubleSide });
      } else {
        geometry.setAttribute("color", attribute(part.rgb, 3));
        material = new THREE.MeshBasicMaterial({ vertexColors: true, side: THREE.DoubleSide });
      }
      const mesh = new THREE.Mesh(geometry, material);
      mesh.userData.plain = material;
      mesh.userData.clay = new THREE.MeshLambertMaterial({ color: 0xd8d2c8, side: THREE.DoubleSide, flatShading: true });
      return mesh;
    }
    if (header.sparse) layers.set("sparse", { label: "Sparse points", object: cloud(header.sparse), on: !header.dense && !header.mesh });
    if (header.dense) layers.set("dense", { label: "Dense points", object: cloud(header.dense), on: !header.mesh });
    if (header.mesh) layers.set("mesh", { label: header.mesh.uv ? "Textured mesh" : "Mesh", object: await surface(header.mesh), on: true });

    const frusta = new THREE.Group(), pictures = new THREE.Group();
    const lineColour = () => new THREE.Color(style("--c0")), chosenColour = () => new THREE.Color(style("--c3"));
    const edges = [];
    header.cameras.forEach((one, row) => {
      const c = one.center, k = [0, 1, 2, 3].map((i) => one.corners.slice(3 * i, 3 * i + 3));
      const points = [...k.flatMap((corner) => [c, corner]), ...k.flatMap((corner, i) => [corner, k[(i + 1) % 4]])];
      const geometry = new THREE.BufferGeometry();
      geometry.setAttribute("position", new THREE.BufferAttribute(new Float32Array(points.flat()), 3));
      const line = new THREE.LineSegments(geometry, new THREE.LineBasicMaterial({ color: lineColour() }));
      line.userData.row = row;
      edges.push(line);
      frusta.add(line);
      const image = photos.get(one.photo);
      if (!image) return;
      const face = new THREE.BufferGeometry();
      face.setAttribute("position", new THREE.BufferAttribute(new Float32Array(k.flat()), 3));
      face.setAttribute("uv", new THREE.BufferAttribute(new Float32Array([0, 1, 1, 1, 1, 0, 0, 0]), 2));
      face.setIndex([0, 1, 2, 0, 2, 3]);
      const texture = new THREE.Texture(image);
      const put = () => { texture.needsUpdate = true; render(); };
      if (image.complete) put(); else image.addEventListener("load", put, { once: true });
      pictures.add(new THREE.Mesh(face, new THREE.MeshBasicMaterial({ map: texture, side: THREE.DoubleSide })));
    });
    if (header.cameras.length) layers.set("cameras", { label: "Cameras", object: frusta, on: true });
    if (pictures.children.length) layers.set("pictures", { label: "Photos", object: pictures, on: false });
    for (const layer of layers.values()) { layer.object.visible = layer.on; root.add(layer.object); }

    // Turning

    const begin = header.start || { eye: [0.5, 0.5, -1], target: [0.5, 0.5, 0.5], up: [0, -1, 0], aspect: 1.5, fov: 40 };
    camera.up.set(...begin.up);
    function place() { // as far away as a picture narrower than it was meant for needs
      const away = Math.max(1, begin.aspect / (stage.clientWidth / Math.max(1, stage.clientHeight)));
      const target = new THREE.Vector3(...begin.target);
      camera.position.set(...begin.eye).sub(target).multiplyScalar(away).add(target);
      controls.target.copy(target);
      controls.update();
    }
    const controls = new THREE.OrbitControls(camera, canvas);
    controls.enableZoom = false; // until the reader has clicked into the picture: the wheel scrolls the page
    controls.addEventListener("change", render);
    stage.addEventListener("pointerdown", (event) => {
      controls.enableZoom = true;
      // OrbitControls takes fingers' places in the page for places in the window: wrong in a page that is scrolled.
      controls.zoomToCursor = event.pointerType !== "touch";
    }, true);
    document.addEventListener("pointerdown", (event) => { if (!stage.contains(event.target)) controls.enableZoom = false; }, true);
    function reset() {
      leave();
      place();
      render();
    }
    canvas.addEventListener("keydown", (event) => {
      const turn = { ArrowLeft: [-0.1, 0], ArrowRight: [0.1, 0], ArrowUp: [0, -0.1], ArrowDown: [0, 0.1] }[event.key];
      const zoom = { "+": 0.9, "=": 0.9, "-": 1 / 0.9 }[event.key];
      if ((!turn && !zoom) || looking !== null) return;
      event.preventDefault();
      const arm = camera.position.clone().sub(controls.target);
      if (zoom) arm.multiplyScalar(zoom);
      else {
        arm.applyAxisAngle(camera.up, -turn[0]);
        const side = new THREE.Vector3().crossVectors(camera.up, arm).normalize();
        const turned = arm.clone().applyAxisAngle(side, turn[1]);
        if (turned.angleTo(camera.up) > 0.1 && turned.angleTo(camera.up) < Math.PI - 0.1) arm.copy(turned);
      }
      camera.position.copy(controls.target).add(arm);
      controls.update();
      render();
    });

    // Looking through a camera

    let looking = null, before = null;
    function look(row) {
      const one = header.cameras[row];
      if (!one) return;
      if (looking === null) before = { position: camera.position.clone(), quaternion: camera.quaternion.clone() };
      looking = row;
      controls.enabled = false;
      const r = one.rotation;
      camera.position.set(...one.center);
      const basis = new THREE.Matrix4();
      basis.set(r[0], -r[3], -r[6], 0, r[1], -r[4], -r[7], 0, r[2], -r[5], -r[8], 0, 0, 0, 0, 1);
      camera.quaternion.setFromRotationMatrix(basis);
      camera.updateMatrixWorld();
      frusta.visible = false;
      pictures.visible = false;
      const name = header.names[one.photo];
      $("looking").textContent = name;
      $("look-controls").hidden = false;
      stage.dataset.looking = name;
      const image = photos.get(one.photo);
      overlay.hidden = !image;
      if (image) { overlay.src = image.src; overlay.alt = name; }
      for (const figure of document.querySelectorAll("#photos figure[data-photo]")) figure.classList.toggle("chosen", Number(figure.dataset.photo) === one.photo);
      fit();
    }
    function leave() {
      if (looking === null) return;
      looking = null;
      delete stage.dataset.looking;
      overlay.hidden = true;
      $("look-controls").hidden = true;
      for (const figure of document.querySelectorAll("#photos figure.chosen")) figure.classList.remove("chosen");
      frusta.visible = layers.has("cameras") && layers.get("cameras").on;
      pictures.visible = layers.has("pictures") && layers.get("pictures").on;
      camera.position.copy(before.position);
      camera.quaternion.copy(before.quaternion);
      controls.enabled = true;
      fit();
    }
    function fit() {
      const width = stage.clientWidth, height = stage.clientHeight;
      if (!width || !height) return;
      renderer.setSize(width, height);
      camera.aspect = width / height;
      camera.updateProjectionMatrix();
      if (looking !== null) {
        // The photo as large as the picture allows; pixels are counted from the middle of the first.
        const one = header.cameras[looking], [w, h] = one.size, s = Math.min(width / w, height / h);
        const left = (width - s * w) / 2, top = (height - s * h) / 2, m = camera.projectionMatrix.elements;
        m[0] = (2 * one.focal[0] * s) / width;
        m[5] = (2 * one.focal[1] * s) / height;
        m[8] = 1 - (2 * ((one.principal[0] + 0.5) * s + left)) / width;
        m[9] = (2 * ((one.principal[1] + 0.5) * s + top)) / height - 1;
        camera.projectionMatrixInverse.copy(camera.projectionMatrix).invert();
        Object.assign(overlay.style, { left: `${left}px`, top: `${top}px`, width: `${s * w}px`, height: `${s * h}px`, opacity: $("opacity").value });
      }
      draw();
    }

    // A click that is no drag chooses the camera whose pyramid it hits

    let pressed = null;
    canvas.addEventListener("pointerdown", (event) => { pressed = { x: event.clientX, y: event.clientY }; });
    canvas.addEventListener("pointerup", (event) => {
      if (!pressed || looking !== null || Math.hypot(event.clientX - pressed.x, event.clientY - pressed.y) > 6) return;
      const row = hit(event);
      if (row !== null) look(row);
    });
    function hit(event) {
      if (!frusta.visible && !pictures.visible) return null;
      const box = canvas.getBoundingClientRect(), at = [event.clientX - box.left, event.clientY - box.top];
      let best = null, least = event.pointerType === "touch" ? 26 : 14;
      header.cameras.forEach((one, row) => {
        const seen = [one.center, ...[0, 1, 2, 3].map((i) => one.corners.slice(3 * i, 3 * i + 3))].map((xyz) => {
          const p = new THREE.Vector3(...xyz).project(camera);
          return p.z < 1 ? [((p.x + 1) / 2) * box.width, ((1 - p.y) / 2) * box.height] : null;
        });
        if (seen.includes(null)) return;
        const middle = [0, 1].map((axis) => seen.reduce((sum, p) => sum + p[axis], 0) / seen.length);
        const reach = Math.max(...seen.map((p) => Math.hypot(p[0] - middle[0], p[1] - middle[1])));
        const distance = Math.min(Math.hypot(at[0] - middle[0], at[1] - middle[1]) - 0.6 * reach, ...seen.map((p) => Math.hypot(at[0] - p[0], at[1] - p[1])));
        if (distance < least) { least = distance; best = row; }
      });
      return best;
    }
    canvas.addEventListener("pointermove", (event) => {
      if (event.buttons || looking !== null) return;
      const row = hit(event);
      canvas.style.cursor = row === null ? "" : "pointer";
      canvas.title = row === null ? "" : header.names[header.cameras[row].photo];
      light3(row);
    });
    function light3(row) {
      let changed = false;
      edges.forEach((line) => {
        const wanted = line.userData.row === row ? chosenColour() : lineColour();
        if (!line.material.color.equals(wanted)) { line.material.color.copy(wanted); changed = true; }
      });
      if (changed) render();
    }

    // Controls

    const points = ["sparse", "dense"].filter((name) => layers.has(name));
    for (const [name, layer] of layers) {
      const box = node("input", { type: "checkbox", "data-layer": name, checked: layer.on });
      box.addEventListener("change", () => {
        layer.on = box.checked;
        layer.object.visible = layer.on && !(looking !== null && (name === "cameras" || name === "pictures"));
        render();
      });
      $("layers").append(node("label", {}, box, layer.label));
    }
    if (header.mesh) {
      const box = node("input", { type: "checkbox", "data-layer": "clay" });
      box.addEventListener("change", () => {
        const mesh = layers.get("mesh").object;
        mesh.material = box.checked ? mesh.userData.clay : mesh.userData.plain;
        render();
      });
      $("layers").append(node("label", {}, box, "Mesh without colours"));
    }
    const sized = () => { for (const name of points) layers.get(name).object.material.size = Number($("point-size").value) * renderer.getPixelRatio(); render(); };
    $("point-size").addEventListener("input", sized);
    $("size-label").hidden = !points.length;
    $("reset").addEventListener("click", reset);
    $("leave").addEventListener("click", leave);
    const step = (by) => look((looking + by + header.cameras.length) % header.cameras.length);
    $("previous").addEventListener("click", () => step(-1));
    $("next").addEventListener("click", () => step(1));
    $("opacity").addEventListener("input", () => { overlay.style.opacity = $("opacity").value; });
    const figure = $("viewer");
    function full(on) {
      figure.classList.toggle("full", on);
      $("full").setAttribute("aria-pressed", String(on));
      $("full").textContent = on ? "Leave full screen" : "Full screen";
      fit();
    }
    $("full").addEventListener("click", () => {
      const on = !figure.classList.contains("full");
      full(on);
      if (on && figure.requestFullscreen) figure.requestFullscreen().catch(() => {}); // phones without it fill the page
      else if (!on && document.fullscreenElement) document.exitFullscreen();
    });
    document.addEventListener("fullscreenchange", () => { if (!document.fullscreenElement) full(false); });
    addEventListener("keydown", (event) => {
      if (event.key !== "Escape" || document.querySelector("dialog[open]")) return;
      if (looking !== null) leave(); else if (figure.classList.contains("full")) full(false);
    });
    new ResizeObserver(fit).observe(stage);

    const shown = [];
    for (const [name, word] of [["sparse", "sparse"], ["dense", "dense"]]) if (header[name]) shown.push(`${header[name].count.toLocaleString("en")} of ${header[name].of.toLocaleString("en")} ${word} points`);
    if (header.mesh) shown.push(`${header.mesh.faces.toLocaleString("en")} triangles${header.mesh.note ? ` (${header.mesh.note})` : ""}`);
    const far = header.origin.some((value) => Math.abs(value) > 1e3 * header.side) ? ` Coordinates are relative to (${header.origin.map((v) => v.toFixed(2)).join(", ")}).` : "";
    if (shown.length) $("view-note").append(node("br"), `Shown: ${shown.join(", ")}. Positions in steps of ${(header.side / 65535).toPrecision(2)} units.${far}`);

    const themed = () => { scene.background = new THREE.Color(style("--panel")); edges.forEach((line) => line.material.color.copy(lineColour())); render(); };
    themed();
    sized();
    $("layers").hidden = false;
    $("view-controls").hidden = false;
    place();
    fit();
    stage.dataset.ready = "true";
    return { look: (photo) => look(header.cameras.findIndex((one) => one.photo === photo)), themed };
  }

  return { start };
})();
