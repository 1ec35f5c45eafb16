// Draw curves so that no sample is missed and none is drawn that no pixel could show: of the samples in view the
// smallest and the largest in each pixel column, and all of them once there is room.
function drawCurves(page, samplingFrequency, encoded) {
  const decode = ([type, base64]) => new type(Uint8Array.from(atob(base64), (byte) => byte.charCodeAt(0)).buffer);
  const curves = encoded.map(decode);
  const length = curves[0].length;

  // The frames of the extremes of each bin. Bins lie on a fixed grid, so that nothing flickers when time moves.
  function extremes(values, start, end, binSize) {
    const frames = [];
    for (let bin = start - (start % binSize); bin < end; bin += binSize) {
      let low = bin, high = bin;
      for (let i = bin + 1; i < Math.min(bin + binSize, length); i++) {
        if (values[i] < values[low]) low = i;
        if (values[i] > values[high]) high = i;
      }
      frames.push(Math.min(low, high));
      if (low !== high) frames.push(Math.max(low, high));
    }
    return frames;
  }

  function draw() {
    const [from, to] = page.layout.xaxis.range.map((time) => time * samplingFrequency);
    const clip = (frame) => Math.min(Math.max(Math.floor(frame), 0), length);
    const binSize = Math.max(1, Math.floor((to - from) / page.clientWidth));
    const margin = to - from; // drawn on either side, so that there is something to pan to
    const frames = curves.map((values) => extremes(values, clip(from - margin), clip(to + margin), binSize));

    const inView = extremes(curves[0], clip(from), Math.max(clip(to), clip(from) + 1), binSize);
    const [bottom, top] = inView.reduce(
      ([low, high], i) => [Math.min(low, curves[0][i]), Math.max(high, curves[0][i])], [Infinity, -Infinity]);
    const room = 0.05 * (top - bottom) || 1;
    Plotly.update(
      page,
      {x: frames.map((list) => list.map((i) => i / samplingFrequency)),
       y: frames.map((list, curve) => list.map((i) => curves[curve][i]))},
      {"yaxis.range": [bottom - room, top + room]},
      curves.map((_, curve) => curve));
  }

  page.on("plotly_relayout", (change) => {
    if (Object.keys(change).some((key) => key.startsWith("xaxis"))) draw();
  });
  draw();
}
