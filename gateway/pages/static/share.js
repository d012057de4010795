// What a donor may pass on after paying: links to share the drive, and the supporter badge. No script of another site.

const $ = (id) => document.getElementById(id);
const SIZE = 1080;

/** Shows the section. `link` is the drive's address, `badge` the badge's, or null. */
export function offerToShare({ link, text, badge, texts, format }) {
  const holes = { url: link, text, both: `${text} ${link}` };
  for (const anchor of document.querySelectorAll("[data-share]"))
    anchor.href = anchor.dataset.share.replace(/\{(\w+)\}/g, (_, name) => encodeURIComponent(holes[name]));
  if (navigator.share) {
    $("share-here").hidden = false;
    $("share-here").onclick = () => navigator.share({ text, url: link }).catch(() => undefined); // closed by the donor
  }
  $("copy").onclick = async () => {
    const done = await navigator.clipboard?.writeText(link).then(() => true, () => false);
    $("copied").textContent = done ? texts.copied : format(texts.copy_failed, { url: link });
  };
  if (badge) showBadge(badge, texts.badge_alt);
  $("share").hidden = false;
}

function showBadge(address, alt) {
  const image = Object.assign(new Image(240, 240), { src: address, alt });
  image.onload = () => ($("badge").hidden = false);
  $("badge-picture").replaceChildren(image);
  $("badge-save").href = address;
  $("badge-save").onclick = (event) => saveAsPng(event, image);
}

/** Saves the badge as PNG, which every network takes as a profile picture; as SVG where that fails. */
function saveAsPng(event, image) {
  const canvas = Object.assign(document.createElement("canvas"), { width: SIZE, height: SIZE });
  const [save, drawing] = [event.currentTarget, canvas.getContext("2d")];
  if (!drawing) return;
  event.preventDefault();
  drawing.drawImage(image, 0, 0, SIZE, SIZE);
  canvas.toBlob((png) => {
    save.onclick = null;
    if (png) {
      save.href = URL.createObjectURL(png);
      save.download = save.download.replace(/svg$/, "png");
    }
    save.click();
  });
}
