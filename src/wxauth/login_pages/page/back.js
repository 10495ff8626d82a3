// The button that leads back to the previous page, if this page is not the first page of its tab.
const back = document.querySelector('.back')
if (back && history.length > 1) {
  back.hidden = false
  back.addEventListener('click', () => history.back())
}
