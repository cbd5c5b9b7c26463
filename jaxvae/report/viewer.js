"use strict";
// Shows the volumes of the page: decodes their mosaics, blends a map over a slice, reads values under the pointer.
// All data are in the page; the script loads nothing.
{
  const root = document.querySelector(".viewer");
  const find = (name) => root.querySelector(`.${name}`);
  const content = JSON.parse(root.querySelector("script").textContent);
  const { volumes, colours } = content;

  const picture = find("slices");
  const stage = find("stage");
  const controls = Object.fromEntries(
    ["volume", "map", "slice", "opacity", "outline", "threshold"].map((name) => [name, find(name)]),
  );
  const GUTTER = 26; // pixels around the picture, for the letters of the sides
  const HIGH = 0.6; // fraction of the window, so that the slider and the values fit below

  // The shown volume, its layers as arrays of levels [Z, rows, X] (null while they are decoded), and the pixel under
  // the pointer.
  let volume = volumes[0];
  let layers = null;
  let pointed = null;
  let wish = 0;
  let failed = false; // the last choice could not be decoded

  const chosen = () => volume.maps[controls.map.value] ?? null;
  const number = (value) => String(Number(value.toPrecision(3))).replace("-", "−");
  // The box can be ticked for the map of another volume while this map has no threshold.
  const floor = (map) => (map?.above && controls.threshold.checked ? map.above : 0);

  function sheet(width, height) {
    const canvas = document.createElement("canvas");
    [canvas.width, canvas.height] = [width, height];
    return canvas.getContext("2d", { willReadFrequently: true });
  }

  // The levels of a layer. Its mosaic is read one row of slices at a time, because phones limit the size of a canvas.
  async function decode(layer, { size, columns }) {
    const image = new Image();
    image.src = layer.png;
    await image.decode();
    const bitmap = await createImageBitmap(image);
    const [width, height, depth] = size;
    const strip = sheet(columns * width, height);
    const levels = new Uint8Array(width * height * depth);
    let sum = 0;
    for (let z = 0; z < depth; z++) {
      const column = z % columns;
      if (!column) strip.drawImage(bitmap, 0, (-z / columns) * height);
      const { data } = strip.getImageData(column * width, 0, width, height);
      for (let i = 0, n = z * width * height; i < data.length; i += 4, n++) sum += levels[n] = data[i];
    }
    bitmap.close();
    if (sum !== layer.sum) {
      problem(
        "This browser changes the pixels that a page reads, to protect you from being recognised: " +
          "the pictures and values below are wrong. Allow canvas data for this page, or use another browser.",
      );
    }
    return levels;
  }

  function problem(text) {
    find("problem").textContent = text;
    find("problem").hidden = false;
  }

  // Decoding takes a moment. If the user chooses again meanwhile, the last choice counts.
  async function load() {
    const mine = ++wish;
    const map = chosen();
    layers = null;
    root.setAttribute("aria-busy", "true");
    if (failed) find("problem").hidden = true;
    failed = false;
    try {
      const read = (layer) => layer && (layer.levels ??= decode(layer, volume));
      const [image, heat, mask] = await Promise.all([volume.image, map, volume.mask].map(read));
      if (mine !== wish) return;
      layers = { image, map: heat, mask };
    } catch (error) {
      if (mine !== wish) return;
      root.setAttribute("aria-busy", "false");
      failed = true;
      problem(`A picture of ${volume.name} cannot be decoded: ${error.message}`);
      return;
    }
    root.setAttribute("aria-busy", "false");
    draw();
  }

  function choose(index) {
    // Keep only one volume decoded: a dozen would fill the memory of a phone.
    for (const layer of [volume.image, volume.mask, ...volume.maps]) if (layer) delete layer.levels;
    const name = chosen()?.name;
    volume = volumes[index];
    // Clear the picture of the previous volume, in case this one cannot be decoded.
    picture.getContext("2d").clearRect(0, 0, picture.width, picture.height);
    const maps = volume.maps.map((map, i) => new Option(map.name, i));
    controls.map.replaceChildren(new Option("none", "none"), ...maps);
    const same = volume.maps.findIndex((map) => map.name === name);
    controls.map.value = name === undefined || !volume.maps.length ? "none" : Math.max(same, 0);
    const [first, last] = [volume.origin[2], volume.origin[2] + volume.size[2] - 1];
    Object.assign(controls.slice, { min: first, max: last, value: volume.start });
    picture.setAttribute("aria-valuemin", first);
    picture.setAttribute("aria-valuemax", last);
    controls.outline.closest("label").hidden = !volume.mask;
    find("facts").hidden = !volume.facts.length;
    find("facts").replaceChildren(
      ...volume.facts.map((fact) => {
        const pair = document.createElement("div");
        pair.append(...fact.map((text, i) => Object.assign(document.createElement(i ? "dd" : "dt"), { textContent: text })));
        return pair;
      }),
    );
    const { image, step } = volume;
    find("levels").textContent =
      `Voxels are shown without smoothing${step > 1 ? `, ${step} × ${step} per pixel` : ""}, cropped to the foreground. ` +
      `Values have 256 steps: the image from ${number(image.low)} to ${number(image.high)}, maps from 0 to the top of ` +
      "their scale, which is the same for all volumes.";
    load();
  }

  // Set the size of the picture. All volumes share one scale in millimetres, so that a small head looks small, and one
  // stage, so that the page does not jump. From three screen pixels per voxel up, the number is whole.
  function fit() {
    const ratio = window.devicePixelRatio || 1;
    const extent = (axis) => Math.max(...volumes.map(({ size, spacing }) => size[axis] * spacing[axis]));
    const scale = Math.min((stage.clientWidth - 2 * GUTTER) / extent(0), (HIGH * window.innerHeight) / extent(1));
    const least = scale * ratio * Math.min(...volumes.map(({ spacing }) => spacing[0]));
    const whole = least >= 3 ? Math.floor(least) / least : 1;
    const sides = ({ size, spacing }) => {
      const zoom = whole * scale * ratio * spacing[0];
      return [zoom * size[0], zoom * size[1] * (spacing[1] / spacing[0])].map((side) => Math.max(1, Math.round(side)));
    };
    const [width, height] = sides(volume);
    const tallest = Math.max(...volumes.map((each) => sides(each)[1]));
    stage.style.height = `${tallest / ratio + 2 * GUTTER}px`;
    if (picture.width !== width || picture.height !== height) [picture.width, picture.height] = [width, height];
    picture.style.width = `${width / ratio}px`;
    picture.style.height = `${height / ratio}px`;
  }

  // Blend one pixel of the map over one of the image into `target`: more colour for higher levels, none at 0.
  function blend(target, i, grey, level, opacity) {
    const alpha = opacity * (level / 255);
    for (let c = 0; c < 3; c++) target[i + c] = (1 - alpha) * grey + alpha * colours[level][c];
    target[i + 3] = 255;
  }

  function draw() {
    fit();
    describe();
    if (!layers) return;
    const { image, map, mask } = layers;
    const [width, height] = volume.size;
    const start = (controls.slice.value - volume.origin[2]) * width * height;
    const plane = sheet(width, height);
    const pixels = plane.createImageData(width, height);
    const least = floor(chosen());
    const opacity = controls.opacity.value / 100;
    for (let n = 0; n < width * height; n++) {
      const level = map ? map[start + n] : 0;
      blend(pixels.data, 4 * n, image[start + n], level < least ? 0 : level, opacity);
    }
    plane.putImageData(pixels, 0, 0);
    const context = picture.getContext("2d");
    context.imageSmoothingEnabled = picture.width < width;
    context.drawImage(plane.canvas, 0, 0, picture.width, picture.height);
    if (mask && controls.outline.checked) outline(context, mask.subarray(start, start + width * height));
    tell();
  }

  // Draw the edges between pixels inside and outside the mask, on whole screen pixels, so that they stay sharp.
  function outline(context, mask) {
    const [width, height] = volume.size;
    const line = Math.max(1, Math.round(1.5 * (window.devicePixelRatio || 1)));
    const [x, y] = [(i) => Math.round((i * picture.width) / width), (j) => Math.round((j * picture.height) / height)];
    const inside = (i, j) => i >= 0 && j >= 0 && i < width && j < height && mask[j * width + i] > 0;
    context.fillStyle = content.outline;
    const half = line >> 1;
    for (let j = 0; j <= height; j++) {
      for (let i = 0; i <= width; i++) {
        const here = inside(i, j);
        if (here !== inside(i, j - 1)) context.fillRect(x(i) - half, y(j) - half, x(i + 1) - x(i) + line, line);
        if (here !== inside(i - 1, j)) context.fillRect(x(i) - half, y(j) - half, line, y(j + 1) - y(j) + line);
      }
    }
  }

  // Update everything beside the picture that depends on the controls.
  function describe() {
    const map = chosen();
    const z = controls.slice.value;
    find("slice-value").textContent = `${z}`;
    picture.setAttribute("aria-valuenow", z);
    picture.setAttribute("aria-valuetext", `${z}, ${volume.name}, ${map ? `map ${map.name}` : "no map"}`);
    find("opacity-value").textContent = `${controls.opacity.value} %`;
    controls.opacity.disabled = !map;
    find("scale").hidden = !map;
    controls.threshold.closest("label").hidden = !map?.above;
    if (!map) return;
    find("top").textContent = number(map.high);
    find("scale").setAttribute("aria-label", `Colours of ${map.name}, from 0 to ${number(map.high)}`);
    find("mark").hidden = !map.above;
    if (map.above) {
      find("mark").style.left = `${(100 * map.threshold) / map.high}%`;
      find("threshold-value").textContent = ` (${number(map.threshold)})`;
    }
    const bar = find("bar").getContext("2d");
    const pixels = bar.createImageData(256, 1);
    // Over middle grey, which is how most colours appear in the picture.
    const [least, opacity] = [floor(map), controls.opacity.value / 100];
    for (let level = 0; level < 256; level++) blend(pixels.data, 4 * level, 128, level < least ? 0 : level, opacity);
    bar.putImageData(pixels, 0, 0);
  }

  // The position of a voxel as other viewers show it: millimetres towards right or left, front or back, head or feet.
  function place(voxel) {
    if (!volume.affine) return ["Voxel", voxel.join(", ")];
    const side = (mm, axis) => `${(mm < 0 ? "LPI" : "RAS")[axis]} ${Math.abs(mm).toFixed(1)}`;
    const at = volume.affine.map((row) => row[3] + voxel.reduce((sum, index, axis) => sum + row[axis] * index, 0));
    return ["Position", `${at.map(side).join(", ")} mm`];
  }

  // Show the values under the pointer. They come from the levels, so the ends of a scale are only bounds.
  function tell() {
    const line = find("values");
    if (!pointed || !layers) {
      line.textContent = "Point at the picture to see the values of a voxel.";
      return;
    }
    const [width, height] = volume.size;
    const [column, row] = pointed;
    const n = (controls.slice.value - volume.origin[2]) * width * height + row * width + column;
    const value = ({ low, high }, level) => {
      const sign = level === 255 ? "≥ " : level === 0 && low !== 0 ? "≤ " : "";
      return sign + number(low + (level / 255) * (high - low));
    };
    const middle = (index) => index * volume.step + (volume.step >> 1);
    const x = volume.origin[0] + middle(column);
    const y = volume.origin[1] + middle(height - 1 - row);
    const map = chosen();
    const shown = [place([x, y, Number(controls.slice.value)]), ["Image", value(volume.image, layers.image[n])]];
    if (map) shown.push([map.name, value(map, layers.map[n])]);
    if (layers.mask) shown.push(["Known lesion", layers.mask[n] ? "yes" : "no"]);
    line.replaceChildren(
      ...shown.flatMap(([name, text]) => {
        const item = document.createElement("span");
        item.append(`${name} `, Object.assign(document.createElement("b"), { textContent: text }));
        return [item, " "];
      }),
    );
  }

  function move(slices) {
    controls.slice.value = Number(controls.slice.value) + slices; // the slider keeps it within its ends
  }

  function toggle(box) {
    if (!box.closest("label").hidden) box.checked = !box.checked;
  }

  const steps = { ArrowUp: 1, ArrowRight: 1, ArrowDown: -1, ArrowLeft: -1, PageUp: 10, PageDown: -10, Home: -1e9, End: 1e9 };
  const letters = {
    "[": () => controls.opacity.stepDown(2),
    "]": () => controls.opacity.stepUp(2),
    m: () => {
      controls.map.selectedIndex = (controls.map.selectedIndex + 1) % controls.map.length;
      load();
    },
    o: () => toggle(controls.outline),
    t: () => toggle(controls.threshold),
  };

  picture.addEventListener("keydown", (event) => {
    const { key, altKey, ctrlKey, metaKey } = event;
    // Brackets need Alt on some keyboards, and some systems write AltGr as Ctrl + Alt. Leave other combinations alone.
    const bracket = "[]".includes(key) && !metaKey && (altKey || !ctrlKey);
    if (!bracket && (altKey || ctrlKey || metaKey)) return;
    if (Object.hasOwn(steps, key)) move(steps[key]);
    else if (Object.hasOwn(letters, key)) letters[key]();
    else return;
    event.preventDefault();
    draw();
  });
  for (const kind of ["pointermove", "pointerdown"]) {
    picture.addEventListener(kind, (event) => {
      const box = picture.getBoundingClientRect();
      const [width, height] = volume.size;
      const within = (part, whole, count) => Math.min(count - 1, Math.max(0, Math.floor((part / whole) * count)));
      pointed = [
        within(event.clientX - box.left, box.width, width),
        within(event.clientY - box.top, box.height, height),
      ];
      tell();
    });
  }
  picture.addEventListener("pointerleave", (event) => {
    // A finger leaves after every tap; keep the values readable.
    if (event.pointerType === "touch") return;
    pointed = null;
    tell();
  });
  controls.volume.addEventListener("change", () => {
    pointed = null;
    choose(controls.volume.value);
  });
  controls.map.addEventListener("change", load);
  for (const name of ["slice", "opacity", "outline", "threshold"]) controls[name].addEventListener("input", draw);
  window.addEventListener("resize", draw);

  controls.volume.replaceChildren(...volumes.map(({ name }, i) => new Option(name, i)));
  // Begin with the first map; later, `choose` keeps the map of the same name.
  controls.map.replaceChildren(...volumes[0].maps.map((map, i) => new Option(map.name, i)));
  choose(0);
}
