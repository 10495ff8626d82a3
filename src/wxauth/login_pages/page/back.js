// The button that leads back to where the person came from, if this page is not the first of its tab.
const back = document.querySelector('.back')
if (back && history.length > 1) {
  back.hidden = false
  back.addEventListener('click', () => history.back())
}
