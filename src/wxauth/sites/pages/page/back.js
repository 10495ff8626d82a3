// The button that leads back to the previous page. Some messages have no such button. The button stays hidden on the
// first page of a tab, because there is no previous page.
const back = document.querySelector('.back')
if (back && history.length > 1) {
  back.hidden = false
  back.addEventListener('click', () => history.back())
}
