// The slider of each case: the pictures of the strip below it, two at a time, one over the other.
for (const box of document.querySelectorAll(".case")) {
  const strip = [...box.querySelectorAll(".strip img")];
  const stage = box.querySelector(".stage");
  const range = box.querySelector("input");
  const slide = () => stage.style.setProperty("--at", range.value + "%");
  for (const side of ["left", "right"]) {
    const choice = box.querySelector("select." + side);
    const picture = stage.querySelector("img." + side);
    const show = () => {
      picture.src = strip[choice.selectedIndex].src;
      picture.alt = strip[choice.selectedIndex].alt;
    };
    choice.addEventListener("change", show);
    show();
  }
  range.addEventListener("input", slide);
  slide();
  box.querySelector(".slider").hidden = false; // without scripts the strip is what there is
}
